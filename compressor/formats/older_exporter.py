"""Convert a program to ONNX by torch's older exporter, which traces calls and knows ONNX's past."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from compressor.files.claimed import temporary_folder
from compressor.formats.plain_attention import write_out
from compressor.graph.programs.nodes import ASSERTION

PREFIX = "network."
"""What the weights' names begin with, as `_Flat` holds them."""


def convert_traced(program: ExportedProgram, opset: int | None) -> onnx.ModelProto:
    """Return the ONNX model of a program, with the program's names of inputs and outputs.

    Dimensions are free where the program's are.

    Args:
        program: The program; not changed.
        opset: Version of ONNX's operators; None for the exporter's own.

    Raises:
        Exception: Whatever the exporter raises for what it cannot write.
    """
    assert program.example_inputs is not None
    args, kwargs = program.example_inputs
    leaves = pytree.tree_leaves((args, dict(kwargs)))
    inputs = [
        (str(name), leaf)
        for name, leaf in zip(program.graph_signature.user_inputs, leaves, strict=True)
        if isinstance(leaf, Tensor)
    ]
    outputs = _tensors_returned(program)
    free = {name: _free_dims(program, name) for name in (*dict(inputs), *outputs)}
    with _no_log(), temporary_folder() as folder:
        path = folder / "model.onnx"
        torch.onnx.export(
            _Flat(program, leaves),
            tuple(leaf for _, leaf in inputs),
            path,
            dynamo=False,
            opset_version=opset,
            input_names=[name for name, _ in inputs],
            output_names=outputs,
            dynamic_axes={name: dims for name, dims in free.items() if dims},
        )
        model = onnx.load(str(path))
    _name_weights(model)
    _state_shapes(model, program)
    return model


@contextmanager
def _no_log() -> Iterator[None]:
    """Keep the exporter from printing a failure's graph, past Python's streams, in the block."""
    usual = getattr(torch._C, "_jit_onnx_log", None)
    if usual is None:
        yield
        return
    torch._C._jit_onnx_log = lambda *args: None
    try:
        yield
    finally:
        torch._C._jit_onnx_log = usual


class _Flat(nn.Module):
    """A module that runs a program on tensors alone and returns a tuple of tensors alone."""

    def __init__(self, program: ExportedProgram, leaves: list[Any]) -> None:
        super().__init__()
        self.network = _traceable(program)
        self.leaves, self.in_spec = leaves, program.call_spec.in_spec

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        given = iter(tensors)
        leaves = [next(given) if isinstance(leaf, Tensor) else leaf for leaf in self.leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self.in_spec)
        returned = pytree.tree_leaves(self.network(*args, **kwargs))
        return tuple(leaf for leaf in returned if isinstance(leaf, Tensor))


def _tensors_returned(program: ExportedProgram) -> list[str]:
    output = next(node for node in program.graph.nodes if node.op == "output")
    nodes = pytree.tree_leaves(output.args)
    return [
        node.name
        for node in nodes
        if isinstance(node, Node) and isinstance(node.meta.get("val"), Tensor)
    ]


def _free_dims(program: ExportedProgram, name: str) -> dict[int, str]:
    """Return the free dimensions of a node's tensor: dimension -> the expression that it is."""
    node = next(node for node in program.graph.nodes if node.name == name)
    shape = node.meta["val"].shape
    return {i: str(size) for i, size in enumerate(shape) if not isinstance(size, int)}


def _traceable(program: ExportedProgram) -> GraphModule:
    """Return the program's graph, spelled so that tracing follows it.

    It sees sizes being read and used, and attention as products and a softmax.
    """
    module: Any = program.module(check_guards=False)
    module = copy.copy(module)
    for node in list(module.graph.nodes):
        if node.op != "call_function":
            continue
        if node.target is ASSERTION:
            module.graph.erase_node(node)
        elif node.target in _SPELLED:
            node.target = _SPELLED[node.target]
        elif isinstance(node.target, torch._ops.OpOverload) and _takes_sizes(node):
            node.target = _method(node.target)
    module.recompile()
    return GraphModule(module, module.graph).eval()


def _takes_sizes(node: Node) -> bool:
    values = (given.meta.get("val") for given in node.all_input_nodes)
    return any(isinstance(value, torch.SymInt) for value in values)


def _method(operator: torch._ops.OpOverload) -> Callable[..., Any]:
    """Return the operator as people call it, else the tracer loses sizes in its arguments."""
    name = operator._schema.name.rpartition("::")[2]
    first = operator._schema.arguments[:1]
    is_method = bool(first) and str(first[0].type) == "Tensor" and hasattr(Tensor, name)
    home: Any = Tensor if is_method else torch
    method: Callable[..., Any] = getattr(home, name, operator)
    return method


def _slice(x: Tensor, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Tensor:
    return x[(*[slice(None)] * (dim % x.dim()), slice(start, end, step))]


def _attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Compute attention whose causal mask is a constant: old versions of ONNX have no triangles."""
    given = {**dict(zip(("attn_mask", "dropout_p", "is_causal"), args, strict=False)), **kwargs}
    if given.pop("is_causal", False):
        lengths = (int(query.shape[-2]), int(key.shape[-2]))
        given["attn_mask"] = torch.from_numpy(np.tri(*lengths, dtype=np.bool_))
    return write_out(query, key, value, **given)


def _unflatten(x: Tensor, dim: int, sizes: Any) -> Tensor:
    dim %= x.dim()
    return x.reshape(*x.shape[:dim], *sizes, *x.shape[dim + 1 :])


_SPELLED: Mapping[Any, Callable[..., Any]] = {
    torch.ops.aten.sym_size.int: lambda x, dim: x.size(dim),
    torch.ops.aten.unflatten.int: _unflatten,
    torch.ops.aten.slice.Tensor: _slice,
    torch.ops.aten.scaled_dot_product_attention.default: _attention,
}


def _name_weights(model: onnx.ModelProto) -> None:
    """Name the model's weights, in place, by their paths in the network."""
    for tensor in model.graph.initializer:
        tensor.name = tensor.name.removeprefix(PREFIX)
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [name.removeprefix(PREFIX) for name in names]


def _state_shapes(model: onnx.ModelProto, program: ExportedProgram) -> None:
    """Give the model's outputs, in place, the program's sizes, which the exporter may have lost."""
    nodes = {node.name: node for node in program.graph.nodes}
    for value in model.graph.output:
        dims = value.type.tensor_type.shape.dim
        for dim, size in zip(dims, nodes[value.name].meta["val"].shape, strict=False):
            if isinstance(size, int):
                dim.dim_value = size
            else:
                dim.dim_param = str(size)
