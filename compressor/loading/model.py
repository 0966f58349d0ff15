"""Load MODEL, whatever it is: a file judged by its content, a transformers folder or a factory."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from torch.export import ExportedProgram

from compressor.errors import CompressorError, UsageError
from compressor.files.hashes import sha256_of
from compressor.loading.checkpoints import candidates_in
from compressor.loading.factories import (
    SPEC_FORMS,
    Factory,
    call_factory,
    examples_beside,
    find_factory,
)
from compressor.loading.factory_args import parse_factory_args
from compressor.loading.finite import refuse_non_finite
from compressor.loading.given import require_model
from compressor.loading.hugging_face import is_hugging_face, load_hugging_face
from compressor.loading.pickles import load_torch_save
from compressor.loading.programs import load_program_file
from compressor.loading.sniff import FileKind, sniff
from compressor.loading.state_dicts import (
    Taken,
    describe,
    load_strictly,
    module_in,
)
from compressor.loading.torchscript import REFUSED, TRUSTED, read_torchscript
from compressor.loading.wanted import Wanted, refuse_factory, refuse_options_of_weights
from compressor.loading.weight_files import read_safetensors, read_weights
from compressor.loading.wording import cut_list, did_you_mean
from compressor.modules import unwrap
from compressor.records import AS_MADE, RANDOM, ExampleInputs, LoadedModel

WAYS_OUT = {
    FileKind.TORCHSCRIPT: REFUSED,
    FileKind.OLD_PROGRAM: "export it again with this version of torch",
    FileKind.TRUNCATED: "copy or save the file again",
    FileKind.EMPTY: "copy or save the file again",
    FileKind.TEXT: "a Python file is given with its factory: path/file.py:callable",
}
ANY_MODEL = (
    "give a file of torch.save, compressor.save, torch.export.save or safetensors, "
    f"or a factory: {SPEC_FORMS}"
)
TORCH_FILES = (FileKind.TORCH_SAVE, FileKind.PICKLE)


def load_model(spec: str, **wanted: Any) -> LoadedModel:
    """Load MODEL on the CPU.

    Args:
        spec: A file, judged by its content, a transformers folder, or a factory spec.
        wanted: The fields of `Wanted` by name.

    Raises:
        UsageError: The arguments do not go together, or nothing is found under the spec.
        CompressorError: The file cannot be read or trusted, the factory fails, or the weights do
            not fit or are not finite.
    """
    loaded = _load(spec, Wanted(**wanted))
    refuse_non_finite(loaded.module)
    return loaded


def _load(spec: str, wanted: Wanted) -> LoadedModel:
    path = Path(spec).expanduser()
    require_model(spec)
    if path.is_file():
        if wanted.weights or wanted.pretrained:
            option = "--weights" if wanted.weights else "--pretrained"
            raise UsageError(
                f"{option} goes with a factory, and {spec} is a file",
                where=option,
                next_step=f"leave {option} out, or give the factory as MODEL: {SPEC_FORMS}",
            )
        return _load_file(path, wanted)
    if not wanted.weights:
        refuse_options_of_weights(
            wanted, f"{spec} is no file with weights, and no --weights are given"
        )
    if path.is_dir() and is_hugging_face(path):
        return load_hugging_face(spec, path)
    if path.is_dir():
        raise UsageError(
            f"{spec} is a folder, not a model", where="MODEL", next_step=_files_in(path)
        )
    if spec.startswith("hf:"):
        return load_hugging_face(spec, Path(spec.removeprefix("hf:")).expanduser())
    if ":" not in spec:
        raise _not_found(spec, path)
    if wanted.factory:
        raise UsageError(
            f"{spec} is a factory itself, so --factory is one too many",
            where="--factory",
            next_step="leave --factory out; its weights are given as --weights FILE",
        )
    return _load_factory(spec, wanted)


def _load_file(path: Path, wanted: Wanted) -> LoadedModel:
    kind = sniff(path)
    if kind is FileKind.PROGRAM:
        refuse_factory(path, kind, wanted)
        return _from_program(path, load_program_file(path, trust_pickle=wanted.trust_pickle))
    if kind is FileKind.SAFETENSORS:
        return _from_weights(path, kind, read_safetensors(path), wanted)
    if kind is FileKind.TORCHSCRIPT and wanted.trust_pickle and wanted.factory:
        return _from_weights(path, kind, read_torchscript(path), wanted)
    if kind not in TORCH_FILES:
        trusted = kind is FileKind.TORCHSCRIPT and wanted.trust_pickle
        raise CompressorError(
            f"{path.name} is {kind}, and no network can be read from it",
            where=str(path),
            consequence="nothing was loaded",
            next_step=TRUSTED if trusted else WAYS_OUT.get(kind, ANY_MODEL),
        )
    content = load_torch_save(path, kind, trust_pickle=wanted.trust_pickle)
    found = None if _holds_weights(content, wanted) else _module_of(path, content, wanted)
    return found or _from_weights(path, kind, content, wanted)


def _holds_weights(content: Any, wanted: Wanted) -> bool:
    """Return whether the user names a factory, and the content holds a state dict for it."""
    held = candidates_in(content)
    return bool(wanted.factory) and any(not isinstance(c.content, nn.Module) for c in held)


def _module_of(path: Path, content: Any, wanted: Wanted) -> LoadedModel | None:
    found = module_in(content, wanted.weights_key, path.name)
    if found is None:
        return None
    refuse_factory(path, FileKind.TORCH_SAVE, wanted)
    module, wrappers = unwrap(found[0])
    taken = found[1]
    recognised = f"a pickled {type(module).__name__}{taken.words}"
    notes = (*taken.notes, *wrappers)
    return LoadedModel(module, path.stem, recognised, "loaded", sha256_of(path), notes=notes)


def _from_program(path: Path, program: ExportedProgram) -> LoadedModel:
    module = program.module(check_guards=False)
    # torch refuses train() and eval() on it; eval() alone says nothing untrue
    for method in ("train", "eval"):
        module.__dict__.pop(method, None)
    module.eval()
    examples = None
    if program.example_inputs is not None:
        args, kwargs = program.example_inputs
        examples = ExampleInputs(tuple(args), dict(kwargs), "the program's own")
    return LoadedModel(module, path.stem, FileKind.PROGRAM, "loaded", sha256_of(path), examples)


def _from_weights(path: Path, kind: FileKind, content: Any, wanted: Wanted) -> LoadedModel:
    held = list(candidates_in(content))
    if not held:
        raise CompressorError(
            f"{path.name} holds {describe(content)}: no model and no state dict",
            where=str(path),
            next_step=ANY_MODEL,
        )
    if not wanted.factory:
        largest = max(len(candidate.state) for candidate in held)
        raise UsageError(
            f"{path.name} holds a state dict ({largest} tensors): weights without a network",
            where=str(path),
            consequence="there is no model to compress",
            next_step=f"say what makes the network: compress {path} --factory torchvision:resnet18,"
            f" or --factory package.module:callable, or --factory path/file.py:callable",
        )
    made = _load_factory(wanted.factory, Wanted(factory_args=wanted.factory_args))
    taken = _load_into(made.module, content, f"{path} into {wanted.factory}", wanted)
    return replace(
        made,
        stored=taken.stored,
        name=path.stem,
        recognised=f"a state dict{taken.words} in {kind}, for {wanted.factory}",
        weights="loaded",
        sha256=sha256_of(path),
        notes=(*made.notes, *taken.notes),
    )


def _load_into(module: nn.Module, content: Any, where: str, wanted: Wanted) -> Taken:
    key, ignore = wanted.weights_key, wanted.ignore_unexpected
    return load_strictly(module, content, where, key=key, ignore=ignore)


def _load_factory(spec: str, wanted: Wanted) -> LoadedModel:
    if wanted.weights and wanted.pretrained:
        raise UsageError(
            "--weights and --pretrained exclude each other",
            where="--weights",
            next_step="leave one of the two out",
        )
    arguments = parse_factory_args(wanted.factory_args)
    path = Path(wanted.weights).expanduser() if wanted.weights else None
    content = read_weights(path, trust_pickle=wanted.trust_pickle) if path else None
    found = find_factory(spec)
    module, wrappers = unwrap(call_factory(found, arguments, pretrained=wanted.pretrained))
    made = LoadedModel(
        module=_on_cpu(module),
        name=found.name,
        recognised=f"the factory {spec}",
        weights=_origin(found, arguments, pretrained=wanted.pretrained),
        examples=examples_beside(found),
        notes=wrappers,
    )
    if path is None:
        return made
    taken = _load_into(module, content, f"{path} into {spec}", wanted)
    words = f"{made.recognised}, weights{taken.words} of {path.name}" if taken.key else None
    return replace(
        made,
        stored=taken.stored,
        recognised=words or made.recognised,
        weights="loaded",
        sha256=sha256_of(path),
        notes=(*made.notes, *taken.notes),
    )


def _on_cpu(module: nn.Module) -> nn.Module:
    """Move the module to the CPU, unless it is on the meta device."""
    # there are no values to move; `refuse_non_finite` says so later
    is_meta = any(parameter.is_meta for parameter in module.parameters())
    return module if is_meta else module.cpu()


def _origin(factory: Factory, arguments: Mapping[str, Any], *, pretrained: bool) -> str:
    """Return in words where a factory's weights come from."""
    if pretrained:
        return "pretrained"
    # only a library's own factory is known to draw weights at random unless told otherwise
    settings = factory.library.get(False, {})
    untouched = all(arguments.get(name, value) == value for name, value in settings.items())
    return RANDOM if factory.library and untouched else AS_MADE


def _not_found(spec: str, path: Path) -> UsageError:
    folder = path.parent
    siblings = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    hint = did_you_mean(path.name, siblings) if siblings else f" There is no folder {folder}."
    return UsageError(f"there is no file {spec}.{hint}", where="MODEL", next_step=ANY_MODEL)


def _files_in(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    return f"give one of its files: {cut_list(names)}" if names else ANY_MODEL
