"""Read a network from a file, judged by its content."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from torch.export import ExportedProgram

from compressor.errors import CompressorError, UsageError
from compressor.files.hashes import sha256_of
from compressor.loading.checkpoints import candidates_in
from compressor.loading.factory_models import ANY_MODEL, load_factory, load_into
from compressor.loading.pickles import load_torch_save
from compressor.loading.programs import load_program_file
from compressor.loading.sniff import FileKind, sniff
from compressor.loading.state_dicts import (
    describe,
    module_in,
)
from compressor.loading.torchscript import REFUSED, TRUSTED, read_torchscript
from compressor.loading.wanted import Wanted, refuse_factory
from compressor.loading.weight_files import read_safetensors
from compressor.modules import unwrap
from compressor.records import ExampleInputs, LoadedModel

WAYS_OUT = {
    FileKind.OLD_PROGRAM: "export it again with this version of torch",
    FileKind.TRUNCATED: "copy or save the file again",
    FileKind.EMPTY: "copy or save the file again",
    FileKind.TEXT: "a Python file is given with its factory: path/file.py:callable",
}


def read_model(path: Path, wanted: Wanted) -> LoadedModel:
    """Read a network from a file, by the reader of what the file is.

    Raises:
        UsageError: The arguments do not go with such a file.
        CompressorError: No network can be read from it.
    """
    kind = sniff(path)
    if kind not in READERS:
        raise _no_network(path, kind, WAYS_OUT.get(kind, ANY_MODEL))
    return READERS[kind](path, kind, wanted)


def _no_network(path: Path, kind: FileKind, next_step: str) -> CompressorError:
    return CompressorError(
        f"{path.name} is {kind}, and no network can be read from it",
        where=str(path),
        consequence="nothing was loaded",
        next_step=next_step,
    )


def _read_program(path: Path, kind: FileKind, wanted: Wanted) -> LoadedModel:
    refuse_factory(path, kind, wanted)
    return _from_program(path, load_program_file(path, trust_pickle=wanted.trust_pickle))


def _read_safetensors(path: Path, kind: FileKind, wanted: Wanted) -> LoadedModel:
    return _from_weights(path, kind, read_safetensors(path), wanted)


def _read_torchscript(path: Path, kind: FileKind, wanted: Wanted) -> LoadedModel:
    if wanted.trust_pickle and wanted.factory:
        return _from_weights(path, kind, read_torchscript(path), wanted)
    raise _no_network(path, kind, TRUSTED if wanted.trust_pickle else REFUSED)


def _read_torch_save(path: Path, kind: FileKind, wanted: Wanted) -> LoadedModel:
    content = load_torch_save(path, kind, trust_pickle=wanted.trust_pickle)
    model = None if _holds_weights(content, wanted) else _module_of(path, content, wanted)
    return model or _from_weights(path, kind, content, wanted)


def _read_onnx(path: Path, kind: FileKind, wanted: Wanted) -> LoadedModel:
    from compressor.loading.onnx import read_onnx  # the library behind it is slow to import

    return read_onnx(path, kind, wanted)


READERS: Mapping[FileKind, Callable[[Path, FileKind, Wanted], LoadedModel]] = {
    FileKind.PROGRAM: _read_program,
    FileKind.SAFETENSORS: _read_safetensors,
    FileKind.TORCHSCRIPT: _read_torchscript,
    FileKind.TORCH_SAVE: _read_torch_save,
    FileKind.PICKLE: _read_torch_save,
    FileKind.ONNX: _read_onnx,
}
"""What a file is -> how a network is read from it. Of all other kinds there is none to read."""


def _holds_weights(content: Any, wanted: Wanted) -> bool:
    """Return whether the user names a factory, and the content holds a state dict for it."""
    held = candidates_in(content)
    return bool(wanted.factory) and any(not isinstance(c.content, nn.Module) for c in held)


def _module_of(path: Path, content: Any, wanted: Wanted) -> LoadedModel | None:
    held = module_in(content, wanted.weights_key, path.name)
    if held is None:
        return None
    refuse_factory(path, FileKind.TORCH_SAVE, wanted)
    pickled, taken = held
    module, wrappers = unwrap(pickled)
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
    made = load_factory(wanted.factory, Wanted(factory_args=wanted.factory_args))
    taken = load_into(made.module, content, f"{path} into {wanted.factory}", wanted)
    return replace(
        made,
        stored=taken.stored,
        name=path.stem,
        recognised=f"a state dict{taken.words} in {kind}, for {wanted.factory}",
        weights="loaded",
        sha256=sha256_of(path),
        notes=(*made.notes, *taken.notes),
    )
