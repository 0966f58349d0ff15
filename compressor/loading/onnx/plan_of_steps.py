"""Plan how a graph is run: which constants are weights, which numbers, and what each step takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from compressor.loading.onnx.constant_kinds import as_numbers, is_few, is_right_factor, learns
from compressor.loading.onnx.contents import Graph, Node, Shared, as_float32
from compressor.loading.onnx.names import Paths
from compressor.loading.onnx.operators import BRANCH
from compressor.loading.onnx.operators.products import LINEAR
from compressor.loading.onnx.small_numbers import Numbers
from compressor.loading.onnx.stored_forms import GATES, PLAIN, TRANSPOSED, StoredForm, recurrent


@dataclass(frozen=True)
class Held(Shared):
    """A constant that is held as tensors of the network.

    Attributes:
        form: How.
        paths: The tensors' names in the network.
        learns: Whether they are parameters, else buffers.
    """

    form: StoredForm
    paths: tuple[str, ...]
    learns: bool


@dataclass(frozen=True)
class FromValue(Shared):
    """An input of a step that another step computes, or that the network is given."""

    name: str


@dataclass(frozen=True)
class FromTensors(Shared):
    """An input of a step that the network holds: one tensor, or several as a tuple."""

    paths: tuple[str, ...]
    together: bool


Source = FromValue | FromTensors | Numbers | None


@dataclass(frozen=True)
class Planned(Shared):
    """A step: one node, or two that are one layer.

    Attributes:
        node: The node that it runs.
        op: The key of its entry in the table.
        path: Where its module is in the network.
        inputs: What it takes.
        outputs: The names of what it gives.
        branches: Of an `If`, the steps and results of both branches.
    """

    node: Node
    op: str
    path: str
    inputs: tuple[Source, ...]
    outputs: tuple[str, ...]
    branches: tuple[tuple[tuple[Planned, ...], tuple[Source, ...]], ...] = ()


@dataclass(frozen=True)
class GraphPlan(Shared):
    """How a graph is run.

    Attributes:
        steps: Its steps in their order.
        results: What it returns.
        held: Constants that are tensors of the network, by their names in the file.
    """

    steps: tuple[Planned, ...]
    results: tuple[Source, ...]
    held: Mapping[str, Held]


def plan_steps(graph: Graph) -> GraphPlan:
    """Plan how a graph is run."""
    return _Planner(graph).plan()


@dataclass
class _Planner:
    graph: Graph
    tree: Paths = field(default_factory=Paths)
    held: dict[str, Held] = field(default_factory=dict)
    carried: dict[str, Numbers] = field(default_factory=dict)

    def plan(self) -> GraphPlan:
        nodes = _live(self.graph)
        self.uses = _uses(self.graph, nodes)
        self.turned = {
            node.outputs[0]: node.inputs[0]
            for node in nodes
            if node.op == "Transpose"
            and list(node.attributes.get("perm", [1, 0])) == [1, 0]
            and self._rank(node.inputs[0]) == 2
        }
        self.fused = {node.place: bias for node in nodes if (bias := self._bias_after(node))}
        self._hold_constants(nodes)
        steps = tuple(self._steps(nodes))
        results = tuple(self._source(declared.name) for declared in self.graph.outputs)
        return GraphPlan(_without_dead(steps, results), results, self.held)

    # -- constants --------------------------------------------------------------------------------

    def _rank(self, name: str) -> int | None:
        constant = self.graph.constants.get(name)
        return None if constant is None else constant.array.ndim

    def _hold_constants(self, nodes: Sequence[Node]) -> None:
        """Decide of every constant that is used whether it is a weight, a buffer or numbers.

        Those of which the names say where they belong come first.
        """
        names = sorted(self.uses, key=lambda name: not self.graph.constants[name].is_initializer)
        for name in names:
            constant, uses = self.graph.constants[name], self.uses[name]
            is_weight = learns(constant, uses)
            if not is_weight and is_few(constant, uses):
                self.carried[name] = as_numbers(constant)
                continue
            form = self._form(name, uses)
            parts = form.read(torch.from_numpy(as_float32(constant.array)))
            paths = [self.tree.add_tensor(name + ending) for ending in parts]
            self.held[name] = Held(form, tuple(paths), is_weight)

    def _form(self, name: str, uses: Sequence[tuple[Node, int]]) -> StoredForm:
        node, position = uses[0]
        if node.op in GATES and position in (1, 2, 3):
            return recurrent(node.op, position)
        is_product = self._rank(name) == 2 and all(is_right_factor(*use) for use in uses)
        return TRANSPOSED if is_product else PLAIN

    # -- steps ------------------------------------------------------------------------------------

    def _steps(self, nodes: Sequence[Node]) -> Iterator[Planned]:
        ends = {id(add) for add, _ in self.fused.values()}
        for node in nodes:
            if id(node) in ends:
                continue
            if node.op == BRANCH:
                yield self._branch(node)
                continue
            found = self._linear(node) or Planned(
                node, node.op, "", tuple(map(self._source, node.inputs)), self._wanted(node)
            )
            yield replace(found, path=self.tree.add_module(self._place(found)))

    def _wanted(self, node: Node) -> tuple[str, ...]:
        """Return the names of a node's outputs, "" for those that nothing takes."""
        taken = self.followers.keys() | self.returned
        names = [name if name in taken else "" for name in node.outputs]
        while names and not names[-1]:
            names.pop()
        return tuple(names)

    def _branch(self, node: Node) -> Planned:
        branches = []
        for name in ("then_branch", "else_branch"):
            inner: Graph = node.attributes[name]
            steps = tuple(self._steps(inner.nodes))
            branches.append((steps, tuple(self._source(d.name) for d in inner.outputs)))
        path = self.tree.add_module(node.name)
        inputs = tuple(map(self._source, node.inputs))
        return Planned(node, node.op, path, inputs, node.outputs, tuple(branches))

    def _source(self, name: str) -> Source:
        if not name:
            return None
        if name in self.carried:
            return self.carried[name]
        if name in self.held:
            held = self.held[name]
            return FromTensors(held.paths, held.form.name not in ("plain", "transposed"))
        return FromValue(name)

    def _linear(self, node: Node) -> Planned | None:
        """Return a product with a stored weight as a linear layer; None where it is none."""
        weight = self._weight_of(node)
        if not weight:
            return None
        bias = node.inputs[2] if node.op == "Gemm" and len(node.inputs) > 2 else ""
        outputs = node.outputs
        if node.place in self.fused:
            add, bias = self.fused[node.place]
            outputs = add.outputs
        if bias and self._rank(bias) != 1:
            return None
        inputs = (node.inputs[0], weight, *([bias] if bias else []))
        return Planned(node, LINEAR, "", tuple(map(self._source, inputs)), outputs)

    def _weight_of(self, node: Node) -> str:
        """Return the stored weight [out, in] of a product, or ""."""
        if node.op not in ("MatMul", "Gemm") or len(node.inputs) < 2:
            return ""
        attributes, name = node.attributes, node.inputs[1]
        if node.op == "Gemm":
            factors = attributes.get("alpha", 1.0), attributes.get("beta", 1.0)
            if attributes.get("transA", 0) or factors != (1.0, 1.0):
                return ""
            if attributes.get("transB", 0):
                return name if self._is_weight(name) else ""
        if name in self.turned and self._is_weight(self.turned[name]):
            return self.turned[name]
        is_product = self._is_weight(name) and all(is_right_factor(*u) for u in self.uses[name])
        return name if is_product else ""

    def _is_weight(self, name: str) -> bool:
        is_known = name in self.graph.constants and self._rank(name) == 2 and name in self.uses
        return is_known and learns(self.graph.constants[name], self.uses[name])

    def _bias_after(self, node: Node) -> tuple[Node, str] | None:
        """Return the addition of a stored bias that is all that follows a product, and the bias."""
        if node.op != "MatMul" or not (weight := self._weight_of(node)):
            return None
        followers = self.followers.get(node.outputs[0], [])
        if len(followers) != 1 or followers[0].op != "Add" or node.outputs[0] in self.returned:
            return None
        (add,) = followers
        bias = next((name for name in add.inputs if name != node.outputs[0]), "")
        constant = self.graph.constants.get(bias)
        is_kept = constant is not None and constant.array.ndim == 1 and len(self.uses[bias]) == 1
        shape = self.graph.constants[weight].array.shape
        width = shape[0] if weight != node.inputs[1] else shape[1]
        fits = is_kept and constant is not None and constant.array.size == width > 1
        return (add, bias) if fits else None

    @cached_property
    def returned(self) -> set[str]:
        """The names of the graph's outputs."""
        return {declared.name for declared in self.graph.outputs}

    @cached_property
    def followers(self) -> dict[str, list[Node]]:
        """The nodes that take each value; of a branch's results the first node stands for it."""
        found: dict[str, list[Node]] = {}
        for node in _all_nodes(self.graph.nodes):
            for name in node.inputs:
                found.setdefault(name, []).append(node)
        for name in _inner_results(self.graph.nodes):
            found.setdefault(name, []).append(self.graph.nodes[0])
        return found

    def _place(self, planned: Planned) -> str:
        """Return where a step's module is: around its weights, else by the node's name."""
        for source in planned.inputs[1:]:
            if isinstance(source, FromTensors) and "." in source.paths[0]:
                return source.paths[0].rpartition(".")[0]
        return planned.node.name


def _uses(graph: Graph, nodes: Sequence[Node]) -> dict[str, list[tuple[Node, int]]]:
    found: dict[str, list[tuple[Node, int]]] = {}
    for node in _all_nodes(nodes):
        for position, name in enumerate(node.inputs):
            if name in graph.constants:
                found.setdefault(name, []).append((node, position))
    returned = Node(-1, "results", "", 0, (), (), {})
    for name in (*(d.name for d in graph.outputs), *_inner_results(nodes)):
        if name in graph.constants:
            found.setdefault(name, []).append((returned, 0))
    return found


def _all_nodes(nodes: Sequence[Node]) -> Iterator[Node]:
    for node in nodes:
        yield node
        for value in node.attributes.values():
            if isinstance(value, Graph):
                yield from _all_nodes(value.nodes)


def _inner_results(nodes: Sequence[Node]) -> Iterator[str]:
    for node in nodes:
        for value in node.attributes.values():
            if isinstance(value, Graph):
                yield from (declared.name for declared in value.outputs)
                yield from _inner_results(value.nodes)


def _live(graph: Graph) -> tuple[Node, ...]:
    """Return the nodes that an output depends on."""
    wanted = {declared.name for declared in graph.outputs}
    live: list[Node] = []
    for node in reversed(graph.nodes):
        if wanted & set(node.outputs):
            live.append(node)
            wanted |= {name for each in _all_nodes([node]) for name in each.inputs}
            wanted |= set(_inner_results([node]))
    return tuple(reversed(live))


def _without_dead(steps: tuple[Planned, ...], results: tuple[Source, ...]) -> tuple[Planned, ...]:
    """Leave out the steps that nothing takes anything from."""
    wanted = {source.name for source in results if isinstance(source, FromValue)}
    live: list[Planned] = []
    for step in reversed(steps):
        if wanted & set(step.outputs):
            live.append(step)
            wanted |= set(_taken([step]))
    return tuple(reversed(live))


def _taken(steps: Sequence[Planned]) -> Iterator[str]:
    for step in steps:
        yield from (source.name for source in step.inputs if isinstance(source, FromValue))
        for inner, results in step.branches:
            yield from (source.name for source in results if isinstance(source, FromValue))
            yield from _taken(inner)
