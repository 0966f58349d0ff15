"""Plan how a graph is run: which constants are weights, which numbers, and what each step takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from compressor.loading.onnx.constant_kinds import as_numbers, is_few, is_right_factor, learns
from compressor.loading.onnx.contents import Graph, Node, as_float32
from compressor.loading.onnx.names import Paths
from compressor.loading.onnx.operators import BRANCH
from compressor.loading.onnx.operators.products import LINEAR
from compressor.loading.onnx.planned_steps import (
    FromTensors,
    FromValue,
    GraphPlan,
    Held,
    Planned,
    Source,
)
from compressor.loading.onnx.small_numbers import Numbers
from compressor.loading.onnx.stored_forms import GATES, PLAIN, TRANSPOSED, StoredForm, recurrent
from compressor.loading.onnx.uses import (
    all_nodes,
    inner_results,
    live_nodes,
    uses_of_constants,
    without_dead,
)


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
        nodes = live_nodes(self.graph)
        self.uses = uses_of_constants(self.graph, nodes)
        self.turned = {
            node.outputs[0]: node.inputs[0]
            for node in nodes
            if node.op == "Transpose"
            and list(node.attributes.get("perm", [1, 0])) == [1, 0]
            and self._rank(node.inputs[0]) == 2
        }
        self.fused = {node.place: bias for node in nodes if (bias := self._bias_after(node))}
        self._hold_constants()
        steps = tuple(self._steps(nodes))
        results = tuple(self._source(declared.name) for declared in self.graph.outputs)
        return GraphPlan(without_dead(steps, results), results, self.held)

    # -- constants --------------------------------------------------------------------------------

    def _rank(self, name: str) -> int | None:
        constant = self.graph.constants.get(name)
        return None if constant is None else constant.array.ndim

    def _hold_constants(self) -> None:
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
            planned = self._linear(node) or Planned(
                node, node.op, "", tuple(map(self._source, node.inputs)), self._wanted(node)
            )
            yield replace(planned, path=self.tree.add_module(self._place(planned)))

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
        followers: dict[str, list[Node]] = {}
        for node in all_nodes(self.graph.nodes):
            for name in node.inputs:
                followers.setdefault(name, []).append(node)
        for name in inner_results(self.graph.nodes):
            followers.setdefault(name, []).append(self.graph.nodes[0])
        return followers

    def _place(self, planned: Planned) -> str:
        """Return where a step's module is: around its weights, else by the node's name."""
        for source in planned.inputs[1:]:
            if isinstance(source, FromTensors) and "." in source.paths[0]:
                return source.paths[0].rpartition(".")[0]
        return planned.node.name
