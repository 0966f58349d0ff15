"""MODEL, whatever it is: a file judged by its content, or a factory."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.nn.parameter import is_lazy

from compressor.errors import CompressorError, UsageError
from compressor.files.hashes import sha256_of
from compressor.loading.factories import (
    SPEC_FORMS,
    call_factory,
    examples_beside,
    find_factory,
    parse_factory_args,
)
from compressor.loading.harmless import WRAPPERS
from compressor.loading.hugging_face import load_hugging_face
from compressor.loading.pickles import load_torch_save
from compressor.loading.programs import load_program_file
from compressor.loading.sniff import FileKind, sniff
from compressor.loading.weights import (
    StateDict,
    describe,
    find_content,
    load_strictly,
    read_safetensors,
    read_weights,
)
from compressor.loading.wording import cut_list, did_you_mean
from compressor.records import ExampleInputs, LoadedModel

WAYS_OUT = {
    FileKind.TORCHSCRIPT: "TorchScript runs as its own program and cannot be pruned: load the "
    "original class, and save it by compressor.save(model, example_inputs, 'model.pt')",
    FileKind.ONNX: "ONNX is an output here: give the PyTorch model that it was exported from",
    FileKind.OLD_PROGRAM: "export it again with this version of torch",
    FileKind.TRUNCATED: "copy or save the file again",
    FileKind.EMPTY: "copy or save the file again",
    FileKind.TEXT: "a Python file is given with its factory: path/file.py:callable",
}
ANY_MODEL = (
    "give a file of torch.save, compressor.save, torch.export.save or safetensors, "
    f"or a factory: {SPEC_FORMS}"
)
BOUNDED_BUFFERS = ("running_mean", "running_var")


def load_model(
    spec: str,
    *,
    factory: str | None = None,
    weights: str | None = None,
    factory_args: Sequence[str] = (),
    pretrained: bool = False,
    trust_pickle: bool = False,
) -> LoadedModel:
    """Load MODEL on the CPU.

    Args:
        spec: A file, judged by its content, or a factory spec.
        factory: Makes the network that a state dict in `spec` is loaded into.
        weights: File with a state dict for the factory in `spec`.
        factory_args: `name=literal` for the factory.
        pretrained: Take the library's own weights.
        trust_pickle: Let the file run what it asks for.

    Raises:
        UsageError: The arguments do not go together, or nothing is found under the spec.
        CompressorError: The file cannot be read or trusted, the factory fails, the weights do not
            fit, or are not finite.
    """
    path = Path(spec).expanduser()
    if path.is_file():
        if weights or pretrained:
            option = "--weights" if weights else "--pretrained"
            raise UsageError(
                f"{option} goes with a factory, and {spec} is a file",
                where=option,
                next_step=f"leave {option} out, or give the factory as MODEL: {SPEC_FORMS}",
            )
        loaded = _load_file(path, factory, factory_args, trust_pickle)
    elif path.is_dir():
        raise UsageError(
            f"{spec} is a folder, not a model", where="MODEL", next_step=_files_in(path)
        )
    elif spec.startswith("hf:"):
        loaded = load_hugging_face(spec, Path(spec.removeprefix("hf:")).expanduser())
    elif ":" in spec:
        if factory:
            raise UsageError(
                f"{spec} is a factory itself, so --factory is one too many",
                where="--factory",
                next_step="leave --factory out; its weights are given as --weights FILE",
            )
        loaded = _load_factory(spec, weights, factory_args, pretrained, trust_pickle)
    else:
        raise _not_found(spec, path)
    refuse_non_finite(loaded.module)
    return loaded


def refuse_non_finite(module: nn.Module) -> None:
    """Refuse weights that are NaN or infinite, or not there yet.

    Other buffers may hold infinities: attention masks do.

    Raises:
        CompressorError: Names the tensors.
    """
    lazy = [name for name, value in module.named_parameters() if is_lazy(value)]
    if lazy:
        raise CompressorError(
            f"the model has parameters without a shape yet: {cut_list(lazy)}",
            next_step="run it once on an example before it is saved or returned",
        )
    bad = [name for name, value in module.named_parameters() if not _is_finite(value)]
    for name, value in module.named_buffers():
        bounded = name.endswith(BOUNDED_BUFFERS)
        if not (_is_finite(value) if bounded else not torch.isnan(value).any()):
            bad.append(name)
    if bad:
        raise CompressorError(
            f"the weights are not finite (NaN or infinity) in {cut_list(bad)}",
            consequence="scores and comparisons would mean nothing",
            next_step="take a checkpoint from before the training diverged",
        )


def _is_finite(tensor: torch.Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def _load_file(
    path: Path, factory: str | None, factory_args: Sequence[str], trust_pickle: bool
) -> LoadedModel:
    kind = sniff(path)
    if kind is FileKind.PROGRAM:
        _no_factory(path, kind, factory, factory_args)
        return _from_program(path, load_program_file(path, trust_pickle=trust_pickle))
    if kind is FileKind.SAFETENSORS:
        return _from_state_dict(path, kind, read_safetensors(path), factory, factory_args)
    if kind not in (FileKind.TORCH_SAVE, FileKind.PICKLE):
        raise CompressorError(
            f"{path.name} is {kind}, not a model that can be compressed",
            where=str(path),
            consequence="nothing was loaded",
            next_step=WAYS_OUT.get(kind, ANY_MODEL),
        )
    content = load_torch_save(path, kind, trust_pickle=trust_pickle)
    found = find_content(content)
    if found is None:
        raise CompressorError(
            f"{path.name} holds {describe(content)}: no model and no state dict",
            where=str(path),
            next_step=ANY_MODEL,
        )
    if isinstance(found, nn.Module):
        _no_factory(path, FileKind.TORCH_SAVE, factory, factory_args)
        module = _unwrapped(found)
        return LoadedModel(
            module, path.stem, f"a pickled {type(module).__name__}", "loaded", sha256_of(path)
        )
    return _from_state_dict(path, kind, found, factory, factory_args)


def _no_factory(
    path: Path, kind: FileKind, factory: str | None, factory_args: Sequence[str]
) -> None:
    if factory or factory_args:
        option = "--factory" if factory else "--factory-arg"
        raise UsageError(
            f"{path.name} holds a whole model ({kind}), so {option} has no use",
            where=option,
            next_step=f"leave {option} out",
        )


def _unwrapped(module: nn.Module) -> nn.Module:
    kind = type(module)
    inner = WRAPPERS.get(f"{kind.__module__}.{kind.__qualname__}")
    return getattr(module, inner) if inner else module


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


def _from_state_dict(
    path: Path,
    kind: FileKind,
    state: StateDict,
    factory: str | None,
    factory_args: Sequence[str],
) -> LoadedModel:
    if not factory:
        raise UsageError(
            f"{path.name} holds a state dict ({len(state)} tensors): weights without a network",
            where=str(path),
            consequence="there is no model to compress",
            next_step=f"say what makes the network: compress {path} --factory torchvision:resnet18,"
            f" or --factory package.module:callable, or --factory path/file.py:callable",
        )
    made = _load_factory(factory, None, factory_args, False, False)
    stored = load_strictly(made.module, state, f"{path} into {factory}")
    return replace(
        made,
        stored=stored,
        name=path.stem,
        recognised=f"a state dict in {kind}, for {factory}",
        weights="loaded",
        sha256=sha256_of(path),
    )


def _load_factory(
    spec: str,
    weights: str | None,
    factory_args: Sequence[str],
    pretrained: bool,
    trust_pickle: bool,
) -> LoadedModel:
    if weights and pretrained:
        raise UsageError(
            "--weights and --pretrained exclude each other",
            where="--weights",
            next_step="leave one of the two out",
        )
    arguments = parse_factory_args(factory_args)
    path = Path(weights).expanduser() if weights else None
    state = read_weights(path, trust_pickle=trust_pickle) if path else None
    found = find_factory(spec)
    module = call_factory(found, arguments, pretrained=pretrained)
    origin = "pretrained" if pretrained else "random weights"
    stored: dict[str, torch.dtype] = {}
    if path is not None and state is not None:
        stored = load_strictly(module, state, f"{path} into {spec}")
        origin = "loaded"
    return LoadedModel(
        module=module.cpu(),
        name=found.name,
        recognised=f"the factory {spec}",
        weights=origin,
        sha256=sha256_of(path) if path else None,
        examples=examples_beside(found),
        stored=stored,
    )


def _not_found(spec: str, path: Path) -> UsageError:
    folder = path.parent
    siblings = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    hint = did_you_mean(path.name, siblings) if siblings else f" There is no folder {folder}."
    return UsageError(f"there is no file {spec}.{hint}", where="MODEL", next_step=ANY_MODEL)


def _files_in(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    return f"give one of its files: {cut_list(names)}" if names else ANY_MODEL
