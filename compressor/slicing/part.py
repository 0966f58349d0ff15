"""Take the operators of one module out of a program, as a part that can run alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule, Node

from compressor.graph.programs.lifting import stored_names
from compressor.graph.programs.nodes import ASSERTION, paths_of, read_through
from compressor.modules import lies_within
from compressor.slicing.from_sizes import CannotStandInError, derive, recompute
from compressor.slicing.weights import named_tensors


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
        derived: Name of an input that depends on sizes alone -> operators that compute it from the
            other inputs, for calls that are not given it.
    """

    operators: GraphModule
    tensors: tuple[str, ...]
    inputs: tuple[str, ...]
    output: str
    shapes: tuple[tuple[int | None, ...], ...]
    needed: tuple[int, ...] | None = None
    derived: Mapping[str, GraphModule] = field(default_factory=dict)

    @property
    def kind(self) -> tuple[Any, ...]:
        """Return a key that is equal for modules with the same operators and shapes of inputs."""
        graphs = (self.operators, *self.derived.values())
        targets = tuple(tuple(str(node.target) for node in each.graph.nodes) for each in graphs)
        places = tuple(i for i, name in enumerate(self.inputs) if name in self.derived)
        return self.tensors, self.shapes, self.needed, places, targets

    def complete(self, given: Sequence[Tensor | None]) -> list[Tensor]:
        """Return all inputs, those computed that are not given: they depend on sizes alone."""
        named = dict(zip(self.inputs, given, strict=True))
        sources = [t for name, t in named.items() if name not in self.derived and t is not None]
        return [
            self.derived[name](*sources).to(sources[0].device) if tensor is None else tensor
            for name, tensor in named.items()
        ]


def part_of(program: ExportedProgram, model: nn.Module, path: str) -> Part:
    """Return the operators that were traced from the module at `path` of the model.

    Raises:
        CannotStandInError: They take or give something that is not the module's call.
    """
    nodes = [node for node in program.graph.nodes if is_operator(node) and is_in(node, path)]
    inside = set(nodes)
    stored = stored_names(program)
    outer = list(
        dict.fromkeys(n for node in nodes for n in node.all_input_nodes if n not in inside)
    )
    constants = _constants(program, model)
    held = {n: constants[n].detach().clone() for n in outer if n in constants}
    tensors = [n for n in outer if n.name in stored and n not in held]
    inputs = [n for n in outer if n.name not in stored and _is_tensor(n)]
    own = _own_names(model, path)
    names = [own.get(name, name) for name in (stored[n.name] for n in tensors)]
    if not all(lies_within(name, [path]) for name in names):
        raise CannotStandInError("takes parameters of other modules")
    outputs = [n for n in nodes if _is_tensor(n) and any(map(_is_read, n.users.keys() - inside))]
    outputs = [n for n in outputs if read_through(n) in inside]  # others are what comes in
    if len(outputs) != 1 or not inputs:
        raise CannotStandInError("has not one output")
    graph, holder = Graph(), nn.Module()
    copies: dict[Node, Any] = {n: graph.placeholder(f"own_{i}") for i, n in enumerate(tensors)}
    copies |= {n: graph.placeholder(f"given_{i}") for i, n in enumerate(inputs)}
    for i, (n, constant) in enumerate(held.items()):
        holder.register_buffer(f"constant_{i}", constant, persistent=False)
        copies[n] = graph.get_attr(f"constant_{i}")
    for size in (n for n in outer if n not in copies):
        copies[size] = recompute(graph, size, inputs, copies)
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
        derived=_derived(inputs, constants),
    )


def _derived(inputs: Sequence[Node], constants: Mapping[Node, Tensor]) -> dict[str, GraphModule]:
    """Return how those of the inputs that depend on sizes alone are computed from the others."""
    derived = {n for n in inputs if derive(n, inputs, constants) is not None}
    sources = [n for n in inputs if n not in derived]
    made = {n.name: derive(n, sources, constants) for n in derived}
    return {name: operators for name, operators in made.items() if operators is not None}


def _constants(program: ExportedProgram, model: nn.Module) -> dict[Node, Tensor]:
    """Return the tensors that live in the code alone, which are none of the module's own."""
    stored, own = stored_names(program), named_tensors(model)
    names = {n: stored[n.name] for n in program.graph.nodes if n.name in stored}
    held = {n: program.constants.get(name) for n, name in names.items() if name not in own}
    return {n: tensor for n, tensor in held.items() if isinstance(tensor, Tensor)}


def _own_names(model: nn.Module, path: str) -> dict[str, str]:
    """Map any name of that module's tensors in the model to the name under `path`."""
    # what modules share has several names
    own: dict[int, str] = {}
    for name, tensor in named_tensors(model.get_submodule(path)).items():
        own.setdefault(id(tensor), f"{path}.{name}")
    return {
        name: own[id(tensor)] for name, tensor in named_tensors(model).items() if id(tensor) in own
    }


def is_operator(node: Node) -> bool:
    """Return whether a node computes something: an assertion does not."""
    return node.op == "call_function" and _is_read(node)


def _is_read(node: Node) -> bool:
    return node.target is not ASSERTION


def is_in(node: Node, path: str) -> bool:
    """Return whether an operator was traced from the module at `path`, or one within it."""
    return path in paths_of(node)


def _is_tensor(node: Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor)


def _fixed_shape(node: Node) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in node.meta["val"].shape)
