"""The format OpenVINO: made of the network's ONNX form, run on the CPU in float32, and counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from torch.export import ExportedProgram

from compressor.files.claimed import temporary_folder
from compressor.files.format_table import FORMATS, ONNX, OPENVINO
from compressor.formats.job import Counted, Job, Methods, Outcome, methods_of
from compressor.formats.onnx_file import Route, export_onnx
from compressor.formats.other_runtimes import (
    cannot_be_read,
    does_not_take,
    verifier,
)
from compressor.formats.session import FileModule
from compressor.formats.verification import (
    Array,
    Opened,
    Run,
    to_array,
)
from compressor.formats.verifying import compare_file, inputs_to_compare
from compressor.quiet import silence
from compressor.records import Trace
from compressor.runtimes.failures import does_not_run
from compressor.runtimes.inputs import words_of
from compressor.runtimes.openvino import RUNTIME, fill_free_sizes, load_openvino, open_model

_FILE = FORMATS[OPENVINO].file
_LABEL = FORMATS[OPENVINO].label
_SAID = "compress"
"""The section of the file's runtime information that says where the network comes from."""


# -- written -------------------------------------------------------------------------------------


def convert(
    onnx: Path, path: Path, metadata: Mapping[str, str] | None = None, *, half: bool = False
) -> None:
    """Write an ONNX file's network as an OpenVINO model.

    Args:
        onnx: The ONNX file.
        path: The .xml file; the weights go into a .bin file beside it.
        metadata: What the model says of itself, by name.
        half: Whether floats are stored in 16 bits; else as they are.

    Raises:
        CompressorError: OpenVINO does not read the file, or has no equivalent of an operator.
    """
    ov = load_openvino()
    try:
        with silence():
            model = ov.Core().read_model(str(onnx))
            for name, text in (metadata or {}).items():
                model.set_rt_info(text, [_SAID, name])
            ov.save_model(model, str(path), compress_to_fp16=half)
    except Exception as error:  # OpenVINO's own exceptions share no base but this one
        raise does_not_take(RUNTIME, _LABEL, error, path) from error


def _attempt(traced: Trace, folder: Path) -> Route | None:
    route, onnx = None, folder / FORMATS[ONNX].file
    with temporary_folder() as made:
        if not onnx.exists():
            route, onnx = methods_of(ONNX).attempt(traced, made), made / onnx.name
        convert(onnx, folder / _FILE)
    open_model(folder / _FILE)
    return route


def _write(job: Job) -> Outcome:
    path, outcome = job.folder / _FILE, Outcome()
    onnx = job.folder / FORMATS[ONNX].file
    with temporary_folder() as made:
        if not onnx.exists():
            outcome = methods_of(ONNX).write(replace(job, folder=made))
            onnx = made / onnx.name
        convert(onnx, path, job.metadata)
    model = load_openvino().Core().read_model(str(path))
    is_free = any(port.partial_shape.is_dynamic for port in model.inputs)
    inputs = inputs_to_compare(job.traced, job.real, free_batch=is_free)

    def write(target: Path) -> None:
        _write_anew(job.program, target, job.traced.batch_symbol)

    worst = compare_file(job.program, inputs, path, write, verified=verify_openvino)
    return Outcome(worst, outcome.how)


def _write_anew(program: ExportedProgram, target: Path, symbol: str | None) -> None:
    with temporary_folder() as made:
        export_onnx(program, made / FORMATS[ONNX].file, batch_symbol=symbol)
        convert(made / FORMATS[ONNX].file, target)


# -- compared ------------------------------------------------------------------------------------


def as_function(compiled: Any, path: Path) -> Run:
    """Return a model as a function of inputs by the network's names, or these as Python words."""
    names = [port.any_name for port in compiled.inputs]
    words = dict(zip(words_of(names), names, strict=True))

    def run(feeds: Mapping[str, Any]) -> list[Array]:
        given = {words.get(name, name): to_array(value) for name, value in feeds.items()}
        try:
            found = compiled({name: given[name] for name in names})
        except Exception as error:  # OpenVINO's own exceptions share no base but this one
            raise does_not_run(RUNTIME, error, path) from error
        return [np.asarray(found[port]) for port in compiled.outputs]

    return run


# -- run -----------------------------------------------------------------------------------------


def _open(path: Path) -> Opened:
    return Opened(path, as_function(open_model(path), path), _LABEL, RUNTIME)


verify_openvino = verifier(_open)
"""Compare a model with PyTorch's outputs."""


class OpenVinoModule(FileModule):
    """A module that runs an OpenVINO model on the CPU."""

    def __init__(self, path: Path, names: tuple[str, ...]) -> None:
        """Open the model; the names are those of the network's inputs, in order."""
        compiled = open_model(path)
        sizes = [port.partial_shape[0] for port in compiled.inputs if len(port.partial_shape)]
        batch = next((size.get_length() for size in sizes if size.is_static), None)
        super().__init__(as_function(compiled, path), batch, names)


# -- counted -------------------------------------------------------------------------------------


Shape = tuple[int, ...]


@dataclass(frozen=True)
class _Operation:
    """An operation with static shapes: those of its inputs, and of its first output."""

    inputs: tuple[Shape, ...]
    output: Shape
    attributes: Mapping[str, Any]


def _read(node: Any) -> _Operation:
    shapes = [tuple(node.input_value(i).shape) for i in range(node.get_input_size())]
    return _Operation(tuple(shapes), tuple(node.output(0).shape), node.get_attributes())


def _by_kernel(of: _Operation) -> int:
    """Convolution: each output takes a kernel of all input channels, [out, in, *kernel]."""
    return prod(of.output) * prod(of.inputs[1][1:])


def _by_grouped_kernel(of: _Operation) -> int:
    """Grouped convolution: the weight is [groups, out, in, *kernel]."""
    return prod(of.output) * prod(of.inputs[1][2:])


def _by_spread_kernel(of: _Operation) -> int:
    """Transposed: each input goes to all output channels, the weight is [in, out, *kernel]."""
    return prod(of.inputs[0]) * prod(of.inputs[1][1:])


def _by_spread_grouped_kernel(of: _Operation) -> int:
    """Transposed and grouped: the weight is [groups, in, out, *kernel]."""
    return prod(of.inputs[0]) * prod(of.inputs[1][2:])


def _by_contraction(of: _Operation) -> int:
    """Matrix product: each output is a sum over the first one's columns (or rows)."""
    inner = of.inputs[0][-2 if of.attributes.get("transpose_a") else -1]
    return prod(of.output) * inner


def _by_cell(of: _Operation) -> int:
    """Recurrent layer: x[n, t, in] by W[directions, rows, in] and R[directions, rows, hidden]."""
    samples, steps = of.inputs[0][:2]
    weights = [shape for shape in of.inputs[1:] if len(shape) == 3][-2:]
    return samples * steps * sum(prod(shape) for shape in weights)


MACS: Mapping[str, Callable[[_Operation], int]] = {
    "Convolution": _by_kernel,
    "GroupConvolution": _by_grouped_kernel,
    "ConvolutionBackpropData": _by_spread_kernel,
    "GroupConvolutionBackpropData": _by_spread_grouped_kernel,
    "MatMul": _by_contraction,
    "LSTMSequence": _by_cell,
    "GRUSequence": _by_cell,
    "RNNSequence": _by_cell,
}
"""Multiply-adds by the type of an operation with static shapes."""


def _is_byte(node: Any) -> bool:
    return int(node.get_element_type().bitwidth) == 8


def _count(path: Path) -> Counted:
    ov = load_openvino()
    try:
        with silence():
            model = ov.Core().read_model(str(path))
            fill_free_sizes(model, 1)
        nodes = model.get_ops()
        macs = sum(MACS[n.get_type_name()](_read(n)) for n in nodes if n.get_type_name() in MACS)
        stored = (n for n in nodes if n.get_type_name() == "Constant")
        weights = (n for n in stored if n.get_element_type().is_real() or _is_byte(n))
        return Counted(int(macs), sum(prod(node.output(0).shape) for node in weights))
    except Exception as error:  # OpenVINO's own exceptions share no base but this one
        raise cannot_be_read(_LABEL, error, path) from error


METHODS = Methods(_attempt, _write, _count)
