"""Take the operators of one module out of a program, as a part that can run alone."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule, Node

from compressor.graph.programs.lifting import stored_names
from compressor.graph.programs.nodes import ASSERTION
from compressor.modules import lies_within
from compressor.slicing.weights import named_tensors


class CannotStandInError(Exception):
    """The error raised where a module's part of the program cannot be told apart from the rest."""


@dataclass(frozen=True)
class Part:
    """The operators of one module, as a part of the program.

    Attributes:
        operators: The operators as a graph.
        tensors: Names of the module's own tensors that they take.
        inputs: Names of the program's nodes that come in from elsewhere.
        output: Name of the node that goes out.
        shapes: Shapes of the inputs; None for sizes that are free.
        needed: Which of the inputs that the module had are left, where some are not needed.
    """

    operators: GraphModule
    tensors: tuple[str, ...]
    inputs: tuple[str, ...]
    output: str
    shapes: tuple[tuple[int | None, ...], ...]
    needed: tuple[int, ...] | None = None

    @property
    def kind(self) -> tuple[Any, ...]:
        """Return a key that is equal for modules with the same operators and shapes of inputs."""
        nodes = self.operators.graph.nodes
        return self.tensors, self.shapes, self.needed, tuple(str(node.target) for node in nodes)


def part_of(program: ExportedProgram, model: nn.Module, path: str) -> Part:
    """Return the operators that were traced from the module at `path` of the model.

    Raises:
        CannotStandInError: They take or give something that is not the module's call.
    """
    nodes = [node for node in program.graph.nodes if _is_operator(node) and is_in(node, path)]
    inside = set(nodes)
    stored = stored_names(program)
    outer = list(
        dict.fromkeys(n for node in nodes for n in node.all_input_nodes if n not in inside)
    )
    held = {n: c for n in outer if (c := _constant(program, model, stored.get(n.name))) is not None}
    tensors = [n for n in outer if n.name in stored and n not in held]
    inputs = [n for n in outer if n.name not in stored and _is_tensor(n)]
    own = _own_names(model, path)
    names = [own.get(name, name) for name in (stored[n.name] for n in tensors)]
    if not all(lies_within(name, [path]) for name in names):
        raise CannotStandInError("takes parameters of other modules")
    outputs = [n for n in nodes if _is_tensor(n) and any(map(_is_read, n.users.keys() - inside))]
    if len(outputs) != 1 or not inputs:
        raise CannotStandInError("has not one output")
    graph, holder = Graph(), nn.Module()
    copies: dict[Node, Any] = {n: graph.placeholder(f"own_{i}") for i, n in enumerate(tensors)}
    copies |= {n: graph.placeholder(f"given_{i}") for i, n in enumerate(inputs)}
    for i, (n, constant) in enumerate(held.items()):
        holder.register_buffer(f"constant_{i}", constant, persistent=False)
        copies[n] = graph.get_attr(f"constant_{i}")
    for size in (n for n in outer if n not in copies):
        copies[size] = _recompute(graph, size, inputs, copies)
    for node in nodes:
        copies[node] = graph.node_copy(node, lambda n: copies[n])
        copies[node].meta = {}
    graph.output(copies[outputs[0]])
    return Part(
        operators=GraphModule(holder, graph),
        tensors=tuple(name.removeprefix(f"{path}.") for name in names),
        inputs=tuple(n.name for n in inputs),
        output=outputs[0].name,
        shapes=tuple(_fixed_shape(n) for n in inputs),
    )


def _constant(program: ExportedProgram, model: nn.Module, name: str | None) -> Any:
    """Return a copy of a tensor that lives in the code alone; None for the module's own tensors."""
    tensor = program.constants.get(name or "")
    is_constant = isinstance(tensor, torch.Tensor) and name not in named_tensors(model)
    return tensor.detach().clone() if is_constant else None


def _own_names(model: nn.Module, path: str) -> dict[str, str]:
    """Map any name of that module's tensors in the model to the name under `path`."""
    # what modules share has several names
    own: dict[int, str] = {}
    for name, tensor in named_tensors(model.get_submodule(path)).items():
        own.setdefault(id(tensor), f"{path}.{name}")
    return {
        name: own[id(tensor)] for name, tensor in named_tensors(model).items() if id(tensor) in own
    }


def _is_operator(node: Node) -> bool:
    return node.op == "call_function" and _is_read(node)


def _is_read(node: Node) -> bool:
    return node.target is not ASSERTION


def is_in(node: Node, path: str) -> bool:
    stack = node.meta.get("nn_module_stack") or {}
    return any(p == path for p, _ in stack.values())


def _is_tensor(node: Node) -> bool:
    return isinstance(node.meta.get("val"), torch.Tensor)


def _fixed_shape(node: Node) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in node.meta["val"].shape)


def _recompute(
    graph: Graph, size: Node, inputs: Iterable[Node], copies: Mapping[Node, Any]
) -> Node:
    """Add a size from outside to the graph, in place, computed from an input's dimension.

    The dimension is a multiple or a part of the size.

    Raises:
        CannotStandInError: No input has such a dimension.
    """
    wanted = size.meta.get("val")
    if not isinstance(wanted, torch.SymInt):
        raise CannotStandInError("takes a value that is no tensor")
    for node in inputs:
        for at, dim in enumerate(node.meta["val"].shape):
            share = wanted.node.expr / dim.node.expr if isinstance(dim, torch.SymInt) else None
            if share is not None and share.is_number:
                found = graph.call_function(torch.ops.aten.sym_size.int, (copies[node], at))
                grown = graph.call_function(operator.mul, (found, int(share.p)))
                return graph.call_function(operator.floordiv, (grown, int(share.q)))
    raise CannotStandInError("takes a size that none of its inputs has")
