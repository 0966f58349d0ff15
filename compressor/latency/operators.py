"""Find what each operator of an ONNX file costs: milliseconds, multiply-adds, bytes."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from statistics import median

import onnx
from onnx import shape_inference
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

from compressor.clock import repeat
from compressor.files.claimed import temporary_folder
from compressor.runtimes.inputs import draw_inputs, fill_sizes, usual_sizes
from compressor.runtimes.onnx import Kernel, open_session, read_record

CALLS, LEAST, WARM_UP, SECONDS = 30, 8, 3, 3.0
"""An operator's time is the median of so many calls after the first ones; a slow network is called
less often, until the seconds are over."""
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Operator:
    """One operator of an ONNX file, and what it costs.

    Attributes:
        name: Name of the node.
        layer: The module that it belongs to, as far as the file says; else its own name.
        kind: The ONNX operator's type, e.g. "Conv".
        macs: Multiply-adds of one sample; 0 where it has none.
        traffic: Bytes that it reads and writes for the whole batch, weights included.
        width: Number of channels that it makes; 0 where it makes none.
        ms: Milliseconds of one call; 0 where the runtime has fused it into another.
    """

    name: str
    layer: str
    kind: str
    macs: int
    traffic: int
    width: int
    ms: float = 0.0


def _product(node: onnx.NodeProto, shapes: Shapes, axis: int) -> int:
    return prod(shapes[node.output[0]]) * shapes[node.input[0]][axis]


def _convolution(node: onnx.NodeProto, shapes: Shapes) -> int:
    weight = shapes[node.input[1]]
    return prod(shapes[node.output[0]]) * prod(weight[1:])


def _transposed_convolution(node: onnx.NodeProto, shapes: Shapes) -> int:
    weight = shapes[node.input[1]]
    return prod(shapes[node.input[0]]) * prod(weight[1:])


def _gemm(node: onnx.NodeProto, shapes: Shapes) -> int:
    turned = any(a.name == "transA" and a.i for a in node.attribute)
    return _product(node, shapes, 0 if turned else -1)


def _recurrent(node: onnx.NodeProto, shapes: Shapes) -> int:
    """x[steps, n, in] by W[directions, rows, in] and R[directions, rows, hidden]."""
    steps, samples, _ = shapes[node.input[0]]
    return steps * samples * sum(prod(shapes[name]) for name in node.input[1:3])


MACS: Mapping[str, Callable[[onnx.NodeProto, Shapes], int]] = {
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "Gemm": _gemm,
    "MatMul": lambda node, shapes: _product(node, shapes, -1),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
}


LARGE = 1024
"""Entries of a tensor above which its numbers are weights: no size or axis is computed of them."""


def read_structure(path: Path) -> onnx.ModelProto:
    """Return the model of an ONNX file without the numbers of its weights, which keep their sizes.

    What is inferred from the model copies it; so weights would be held several times.
    """
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        if prod(tensor.dims) > LARGE:
            kept = onnx.TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
            tensor.CopyFrom(kept)
        elif uses_external_data(tensor):
            load_external_data_for_tensor(tensor, str(path.parent))
    return model


def operators_of(path: Path, batch: int = 1) -> list[Operator]:
    """Return every operator of an ONNX file with its cost, without times.

    Args:
        path: The file.
        batch: Number of samples in place of symbolic dimensions.
    """
    return operators_in(read_structure(path), batch)


def operators_in(model: onnx.ModelProto, batch: int = 1) -> list[Operator]:
    """Return every operator of a model, of which the structure is enough, as `operators_of` does.

    The model's symbolic dimensions are set, in place.
    """
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    model = _with_batch(model, batch)
    inferred = shape_inference.infer_shapes(model, data_prop=True)
    graph = inferred.graph
    shapes = dict(weights)
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        is_known = value.type.tensor_type.HasField("shape")
        if is_known and all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = tuple(dim.dim_value for dim in dims)
    return [_operator(node, shapes, weights, batch) for node in graph.node]


def _with_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """Set the symbolic dimensions of the model, in place, and return it.

    They become the batch, or the sizes that the file says it was made with. Dimensions that are
    computed from these (`6*batch`) become unknown, to be inferred.
    """
    symbols = {
        dim.dim_param for value in model.graph.input for dim in value.type.tensor_type.shape.dim
    }
    usual = usual_sizes({entry.key: entry.value for entry in model.metadata_props})
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        given = [dim.dim_value for dim in dims]
        sizes = fill_sizes(given, batch, usual.get(value.name, ()))
        for dim, size in zip(dims, sizes, strict=True):
            dim.dim_value = size
    if usual:
        del model.graph.value_info[:]
    for value in (*model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if not dim.dim_param:
                continue
            if dim.dim_param in symbols and not usual:
                dim.dim_value = batch
            else:
                dim.Clear()
    return model


def _operator(node: onnx.NodeProto, shapes: Shapes, weights: Shapes, batch: int) -> Operator:
    known = all(name in shapes for name in (*node.input, *node.output) if name)
    count = MACS.get(node.op_type)
    macs = count(node, shapes) // batch if count is not None and known else 0
    touched = [prod(shapes[n]) for n in (*node.input, *node.output) if n in shapes]
    owners = [n.rpartition(".")[0] for n in node.input if n in weights and "." in n]
    made = shapes.get(node.output[0], ())
    width = made[1 if len(made) == 4 else -1] if macs and made else 0
    layer = owners[0] if owners else _scope(node) or node.name
    return Operator(node.name, layer, node.op_type, macs, 4 * sum(touched), width)


_SCOPES = "pkg.torch.onnx.name_scopes"


def _scope(node: onnx.NodeProto) -> str:
    """Return the path of the module in which PyTorch's exporter met the operator, or ""."""
    written = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "[]")
    scopes = ast.literal_eval(written)
    # the first scope is the network, the last is the operator itself
    return str(scopes[-2]) if len(scopes) > 2 and scopes[0] == "" else ""


def profile(path: Path, *, threads: int = 1, batch: int = 1, seed: int = 0) -> list[Operator]:
    """Profile an ONNX file on ONNX Runtime's CPU, and return each operator with its median time.

    Operators that the runtime adds (changes of layout) stand at the end.
    """
    return join_times(path, _record_calls(path, threads, batch, seed), batch)


def _record_calls(path: Path, threads: int, batch: int, seed: int) -> list[Kernel]:
    """Call a file again and again; return what the runtime records of it."""
    with temporary_folder() as folder:
        session = open_session(path, threads, record=folder / "profile")
        feeds = draw_inputs(session, batch, seed)
        for _ in repeat(SECONDS, LEAST, CALLS + WARM_UP):
            session.run(None, feeds)
        return read_record(session)


def join_times(path: Path, kernels: Iterable[Kernel], batch: int = 1) -> list[Operator]:
    """Return each operator of an ONNX file with the median of its calls that a runtime recorded.

    Args:
        path: The file.
        kernels: All calls, in order, the first ones of each operator to warm up.
        batch: Number of samples that it was called on.
    """
    model = read_structure(path)
    times, kinds = _medians(kernels, _find_blocked(model.graph))
    timed = [replace(o, ms=times.pop(o.name, 0.0)) for o in operators_in(model, batch)]
    return [*timed, *(Operator(n, n, kinds[n], 0, 0, 0, ms) for n, ms in times.items())]


def external_files(path: Path) -> list[str]:
    """Return the paths, in its folder, of the files that have weights of an ONNX file.

    Paths that lead out of the folder, which no runtime follows, are left out.
    """
    model = onnx.load(str(path), load_external_data=False)
    named = {
        Path(entry.value)
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    within = (name for name in named if not name.is_absolute() and ".." not in name.parts)
    return sorted(name.as_posix() for name in within if (path.parent / name).is_file())


_BLOCKED = "_nchwc"
"""The ending of the runtime's name for a convolution in blocks of channels; before it stands the
name of the output."""


def _find_blocked(graph: onnx.GraphProto) -> dict[str, str]:
    """Map the runtime's names of convolutions in blocks of channels to the names of their nodes.

    The runtime names such a convolution after its output, which may be that of an activation that
    was fused into it.
    """
    makers = {output: node for node in graph.node for output in node.output}
    names: dict[str, str] = {}
    for output, node in makers.items():
        source = node
        while source.op_type != "Conv" and source.input and source.input[0] in makers:
            source = makers[source.input[0]]
        if source.op_type == "Conv":
            names[output + _BLOCKED] = source.name
    return names


def _medians(
    kernels: Iterable[Kernel], names: Mapping[str, str]
) -> tuple[dict[str, float], dict[str, str]]:
    """Return the median milliseconds of each operator after the first calls, and its type."""
    every: dict[str, list[float]] = {}
    kinds: dict[str, str] = {}
    for kernel in kernels:
        name = names.get(kernel.name, kernel.name) if kernel.kind == "Conv" else kernel.name
        every.setdefault(name, []).append(kernel.ms)
        kinds[name] = kernel.kind
    return {name: median(times[WARM_UP:] or times) for name, times in every.items()}, kinds
