"""Load the model in the form that is worked on: plain weights in float32, with a hash."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from compressor.files.format_table import FORMATS, ONNX, PROGRAM
from compressor.files.integrity import check_files
from compressor.formats.weights_file import bytes_of
from compressor.graph.trace import copy_to_cpu
from compressor.loading import load_model, load_strictly, read_weights, refuse_non_finite
from compressor.loading.onnx import OnnxNetwork
from compressor.loading.plain import (
    Types,
    make_plain,
    name_of,
    types_of,
    waiting_in_float32,
    work_in_float32,
)
from compressor.memory_pages import give_pages_back, lies_in, mapped_files
from compressor.modules import copy_of, unwrap
from compressor.options import ModelOptions, TrainingOptions
from compressor.records import LoadedModel


def open_model(
    model: nn.Module | str, options: ModelOptions, *, may_wait: bool = False
) -> LoadedModel:
    """Load the model in the form that is worked on: plain weights in float32, with a hash.

    A module that is given is not changed.

    Args:
        model: A module, or a MODEL as on the command line.
        options: How it is loaded.
        may_wait: Whether a transformers folder's weights may stay in their type until they are
            read (`compressor.on_demand`).

    Raises:
        UsageError: The options do not go together, or nothing is found under the spec.
        CompressorError: The model cannot be loaded, its weights are not finite, or are computed in
            an unknown way.
    """
    loaded = _as_it_came(model, options)
    plain = make_plain(loaded.module, copy_to_cpu)
    worked, types = plain.module, types_of(plain.module)
    if types and may_wait and loaded.folder is not None:
        worked = _on_demand(worked, types)
    elif types:
        worked = copy_to_cpu(worked) if worked is loaded.module else worked
        work_in_float32(worked)
    stored = {n: t for n, t in loaded.stored.items() if n in worked.state_dict()}
    is_onnx = isinstance(loaded.module, OnnxNetwork)
    return replace(
        loaded,
        module=worked,
        given=loaded.module,
        types=types,
        stored=stored | types,
        notes=(*loaded.notes, *plain.notes, *_on_types(types, stored, is_onnx=is_onnx)),
        computed=plain.computed,
    )


def _on_demand(module: nn.Module, types: Types) -> nn.Module:
    """Return a copy of a network that computes in float32 by the numbers of its own tensors.

    Its parameters are converted where they are read (`compressor.on_demand`); the network itself is
    not changed, and must not be from now on.

    Args:
        module: The network.
        types: `types_of` it.

    Raises:
        CompressorError: It cannot be copied.
    """
    copied = copy_of(module, dict(waiting_in_float32(module)))
    work_in_float32(copied, types)
    return copied


def _on_types(types: Types, stored: Types, *, is_onnx: bool) -> list[str]:
    if types or not is_onnx:
        where = "files for runtimes are in float32 (compress export --half writes another one)"
    else:
        where = f"so is {FORMATS[ONNX].file}, and {FORMATS[PROGRAM].file} is in float32"
    if types:
        name = name_of(types)
        return [f"{name} is computed in float32 and given back in {name}; {where}"]
    if stored:
        name = name_of(stored)
        return [f"the weights were stored in {name}, and are again; {where}"]
    return []


def _as_it_came(model: nn.Module | str, options: ModelOptions) -> LoadedModel:
    if isinstance(model, nn.Module):
        inner, notes = unwrap(model)
        refuse_non_finite(inner)
        return LoadedModel(
            module=inner,
            name=type(inner).__name__,
            recognised=f"a module in Python, {type(inner).__qualname__}",
            weights="given",
            is_held=True,
            sha256=tensors_sha256(inner),
            notes=notes,
        )
    for file in (model, options.weights):
        if file is not None:
            check_files(Path(file).parent, (Path(file).name,))
    loaded = load_model(
        model,
        factory=options.factory,
        factory_args=options.factory_arg,
        weights=options.weights,
        weights_key=options.weights_key,
        ignore_unexpected=options.ignore_unexpected,
        pretrained=options.pretrained,
        trust_pickle=options.trust_pickle,
        inputs=options.input,
    )
    return replace(loaded, sha256=loaded.sha256 or tensors_sha256(loaded.module))


def tensors_sha256(module: nn.Module) -> str:
    """Return a hash of the names, types, shapes and values of parameters and buffers."""
    digest, files = hashlib.sha256(), mapped_files()
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(memoryview(bytes_of(tensor)))
            if lies_in(tensor, files):
                give_pages_back(tensor)
    return digest.hexdigest()


def earlier_weights(loaded: LoadedModel, options: TrainingOptions) -> nn.Module:
    """Return a copy of the network, as it is worked on, with the weights of --rewind-to.

    Raises:
        CompressorError: They cannot be read, or are of another network.
    """
    assert options.rewind_to is not None
    earlier, path = copy_to_cpu(loaded.given or loaded.module), Path(options.rewind_to)
    content = read_weights(path, trust_pickle=options.trust_pickle, option="--rewind-to")
    load_strictly(earlier, content, str(path))
    earlier = make_plain(earlier, copy_to_cpu).module.eval()
    work_in_float32(earlier)
    return earlier
