"""Let a module whose code cannot follow run its own traced operators instead.

It keeps its parameters, their names and its place in the user's class; only its `forward` is
replaced by the part of the sliced program that was traced from it.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree

from compressor.agreement import difference
from compressor.errors import CompressorError
from compressor.graph.programs.lifting import lifted, stored_names
from compressor.graph.programs.nodes import ASSERTION
from compressor.records import ExampleInputs
from compressor.slicing.running import set_training
from compressor.slicing.weights import named_tensors


class CannotStandInError(Exception):
    """The error raised where a module's part of the program cannot be told apart from the rest."""


@dataclass(frozen=True)
class Wiring:
    """How a module's call meets its part of the program.

    Attributes:
        arguments: Positions of the operators' inputs among the call's tensors.
        returned: (number of leaves, position of the tensor among them) of what the module returns;
            None for a tensor alone.
    """

    arguments: tuple[int, ...]
    returned: tuple[int, int] | None


@dataclass(frozen=True)
class Part:
    """The operators of one module, as a part of the program.

    Attributes:
        operators: The operators as a graph.
        tensors: Names of the module's own tensors that they take.
        inputs: Names of the program's nodes that come in from elsewhere.
        output: Name of the node that goes out.
        shapes: Shapes of the inputs; None for sizes that are free.
    """

    operators: GraphModule
    tensors: tuple[str, ...]
    inputs: tuple[str, ...]
    output: str
    shapes: tuple[tuple[int | None, ...], ...]

    @property
    def kind(self) -> tuple[Any, ...]:
        """Return a key that is equal for modules with the same operators and shapes of inputs."""
        nodes = self.operators.graph.nodes
        return self.tensors, self.shapes, tuple(str(node.target) for node in nodes)


class StandIn(nn.Module):
    """The class of a module that runs its traced operators."""

    _part: Part
    _wiring: Wiring
    _traced: GraphModule

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute what the original does, for inputs of the traced shapes (any batch).

        Raises:
            CompressorError: An input has another shape than the traced one.
        """
        given = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        inputs = [given[position] for position in self._wiring.arguments]
        for tensor, shape in zip(inputs, self._part.shapes, strict=True):
            self._check(tensor, shape)
        own = [operator.attrgetter(name)(self) for name in self._part.tensors]
        result = self._traced(*own, *inputs)
        if self._wiring.returned is None:
            return result
        count, position = self._wiring.returned
        return tuple(result if i == position else None for i in range(count))

    @staticmethod
    def _check(tensor: torch.Tensor, shape: tuple[int | None, ...]) -> None:
        if len(shape) != tensor.dim() or any(
            wanted not in (None, size) for wanted, size in zip(shape, tensor.shape, strict=True)
        ):
            raise CompressorError(
                f"a layer was traced for inputs of shape {list(shape)}, not {list(tensor.shape)}",
                consequence="it computes nothing",
                next_step="compress the model again with example inputs of this size (--input)",
            )

    def train(self, mode: bool = True) -> Self:
        """Switch the operators between training and evaluation."""
        set_training(self._traced, mode)
        return super().train(mode)


def install(layer: nn.Module, part: Part, wiring: Wiring) -> None:
    """Let a layer run its part of the program from now on; its class is replaced in place."""
    layer.__class__ = StandIn
    layer._part, layer._wiring = part, wiring  # type: ignore[assignment]
    layer._traced = part.operators
    layer.register_forward_pre_hook(_no_fast_path)


def _no_fast_path(*_: Any) -> None:
    """Do nothing, as a hook whose presence makes a transformer block call the layer.

    Without a hook the block reads the layer's parameters for a fused kernel that computes the
    original's shapes.
    """


# -- the part of a program -----------------------------------------------------------------------


def part_of(program: ExportedProgram, model: nn.Module, path: str) -> Part:
    """Return the operators that were traced from the module at `path` of the model.

    Raises:
        CannotStandInError: They take or give something that is not the module's call.
    """
    nodes = [node for node in program.graph.nodes if _is_operator(node) and _in(node, path)]
    inside = set(nodes)
    stored = stored_names(program)
    outer = list(
        dict.fromkeys(n for node in nodes for n in node.all_input_nodes if n not in inside)
    )
    tensors = [n for n in outer if n.name in stored]
    inputs = [n for n in outer if n.name not in stored and _is_tensor(n)]
    own = _own_names(model, path)
    names = [own.get(name, name) for name in (stored[n.name] for n in tensors)]
    if not all(name.startswith(f"{path}.") for name in names):
        raise CannotStandInError("takes parameters of other modules")
    outputs = [n for n in nodes if _is_tensor(n) and any(map(_is_read, n.users.keys() - inside))]
    if len(outputs) != 1 or not inputs:
        raise CannotStandInError("has not one output")
    graph = Graph()
    copies: dict[Node, Any] = {n: graph.placeholder(f"own_{i}") for i, n in enumerate(tensors)}
    copies |= {n: graph.placeholder(f"given_{i}") for i, n in enumerate(inputs)}
    for size in (n for n in outer if n not in copies):
        copies[size] = _recomputed(graph, size, inputs, copies)
    for node in nodes:
        copies[node] = graph.node_copy(node, lambda n: copies[n])
        copies[node].meta = {}
    graph.output(copies[outputs[0]])
    return Part(
        operators=GraphModule(nn.Module(), graph),
        tensors=tuple(name.removeprefix(f"{path}.") for name in names),
        inputs=tuple(n.name for n in inputs),
        output=outputs[0].name,
        shapes=tuple(_fixed_shape(n) for n in inputs),
    )


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


def _in(node: Node, path: str) -> bool:
    stack = node.meta.get("nn_module_stack") or {}
    return any(p == path for p, _ in stack.values())


def _is_tensor(node: Node) -> bool:
    return isinstance(node.meta.get("val"), torch.Tensor)


def _fixed_shape(node: Node) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in node.meta["val"].shape)


def _recomputed(
    graph: Graph, size: Node, inputs: Iterable[Node], copies: Mapping[Node, Any]
) -> Node:
    """Add a size from outside to the graph, computed from an input's dimension.

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


# -- how it is called ----------------------------------------------------------------------------


def wirings(
    module: nn.Module, program: ExportedProgram, inputs: ExampleInputs, parts: Mapping[str, Part]
) -> dict[str, Wiring]:
    """Run the original, and match the tensors of each module's call with the values in the program.

    Of modules with the same operators the first is watched; modules whose call cannot be matched
    are left out.
    """
    kinds: dict[Any, list[str]] = {}
    for path, part in parts.items():
        kinds.setdefault(part.kind, []).append(path)
    firsts = {paths[0]: parts[paths[0]] for paths in kinds.values()}
    calls = _watched_calls(module, inputs, list(firsts))
    wanted = {name for part in firsts.values() for name in (*part.inputs, part.output)}
    values = _Values(program, wanted).of(inputs)
    found: dict[str, Wiring] = {}
    for first, *others in kinds.values():
        wiring = _wiring(parts[first], calls.get(first), values)
        if wiring is not None:
            found |= dict.fromkeys([first, *others], wiring)
    return found


class _EnoughError(Exception):
    """The error that ends a run after all that was wanted has been seen."""


def _watched_calls(
    module: nn.Module, inputs: ExampleInputs, paths: list[str]
) -> dict[str, tuple[list[Any], Any]]:
    """Return the tensors given to the first call of each module, and what it returned, by path."""
    calls: dict[str, tuple[list[Any], Any]] = {}

    def watch(path: str) -> Any:
        def hook(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            given = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
            calls.setdefault(path, (given, output))
            if len(calls) == len(paths):
                raise _EnoughError

        return module.get_submodule(path).register_forward_hook(hook, with_kwargs=True)

    handles = [watch(path) for path in paths]
    try:
        with torch.no_grad(), suppress(_EnoughError):
            module(*inputs.args, **inputs.kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _wiring(
    part: Part, call: tuple[list[Any], Any] | None, values: Mapping[str, torch.Tensor]
) -> Wiring | None:
    if call is None:
        return None
    given, output = call
    positions = [_position(given, values.get(name)) for name in part.inputs]
    if isinstance(output, torch.Tensor):
        leaves, returned = [output], None
    elif isinstance(output, tuple) and all(
        o is None or isinstance(o, torch.Tensor) for o in output
    ):
        leaves = list(output)
        at = _position(leaves, values.get(part.output))
        returned = (len(leaves), -1 if at is None else at)
    else:
        return None
    if None in positions or _position(leaves, values.get(part.output)) is None:
        return None
    return Wiring(tuple(p for p in positions if p is not None), returned)


_SAME_VALUE = 1e-3
"""Relative difference up to which two values are one: both are of the same run, by the module and
by its traced operators."""


def _position(leaves: list[Any], value: torch.Tensor | None) -> int | None:
    for i, leaf in enumerate(leaves):
        if value is None or leaf is None or leaf.shape != value.shape:
            continue
        if difference([[value]], [[leaf]]).size <= _SAME_VALUE:
            return i
    return None


class _Values(Interpreter):
    """Runs a program and keeps the values of some of its nodes."""

    def __init__(self, program: ExportedProgram, wanted: set[str]) -> None:
        super().__init__(program.graph_module)
        self.program, self.wanted = program, wanted
        self.found: dict[str, torch.Tensor] = {}

    def run_node(self, node: Node) -> Any:
        result = super().run_node(node)
        if node.name in self.wanted:
            self.found[node.name] = result
            if len(self.found) == len(self.wanted):
                raise _EnoughError
        return result

    def of(self, inputs: ExampleInputs) -> dict[str, torch.Tensor]:
        leaves = pytree.tree_leaves((inputs.args, dict(inputs.kwargs)))
        with torch.no_grad(), suppress(_EnoughError):
            self.run(*lifted(self.program, leaves), enable_io_processing=False)
        return self.found
