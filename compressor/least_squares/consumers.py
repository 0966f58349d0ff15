"""Find where channels are consumed: the operators that contract a weight.

Also found are what their outputs are added to, and where a constant could be added.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from compressor.graph.programs.lifting import stored_names
from compressor.graph.programs.nodes import (
    argument,
    given_arguments,
    live_nodes,
    operator_of,
    shape_of,
)
from compressor.graph.rules.facts import PASSES_ON, SUMS
from compressor.least_squares.cells import CELL_SUMS, write_out
from compressor.least_squares.layouts import CELLS, LAYOUTS, Layout, at_channels


@dataclass(frozen=True)
class Step:
    """The solution of a regression: what is added to a weight and to a constant.

    Attributes:
        weight: [blocks, features, outputs].
        constant: [blocks, outputs].
        before: Mean square of the wanted change before the step.
        after: Mean square of what is still wanted after the step.
    """

    weight: Tensor
    constant: Tensor
    before: float
    after: float


@dataclass(frozen=True)
class Contraction:
    """An operator that contracts weights, and the regression by which those are fitted.

    Attributes:
        node: Name of its node.
        tensors: Names of the weights, whose features stand one after the other.
        layout: How it is a regression.
        chain: Names of the affine operators that its output runs through.
        target: Name of the node whose value is to stay as it was: a residual sum, or the chain's
            end.
        constant: Name of the tensor that a constant can be added to; "" where there is none.
        sign: Sign of that addition: -1 for a running mean, which is subtracted.
        shared: Whether the weight is used elsewhere too.
        state: Name of the weight whose columns are the cell's own states, where it is a sum of a
            recurrent cell; "" elsewhere.
    """

    node: str
    tensors: tuple[str, ...]
    layout: Layout
    chain: tuple[str, ...]
    target: str
    constant: str
    sign: int
    shared: bool
    state: str = ""

    @property
    def tensor(self) -> str:
        """Return the name of the first weight."""
        return self.tensors[0]

    @property
    def recurs(self) -> bool:
        """Return whether what it computes is among its features, a step later."""
        return bool(self.state)

    def matrix(self, tensors: Mapping[str, Tensor], blocks: int) -> Tensor:
        """Return the weights as a matrix, [blocks, features, outputs].

        Args:
            tensors: The program's, by name.
            blocks: The number of separate regressions.
        """
        layout = self.layout
        each = [layout.matrix(layout.of_rows(tensors[name]), blocks) for name in self.tensors]
        return torch.cat(each, 1) if len(each) > 1 else each[0]

    def store(self, matrix: Tensor, tensors: Mapping[str, Tensor]) -> None:
        """Copy a matrix, [blocks, features, outputs], into the weights, in place."""
        first = 0
        for name in self.tensors:
            weight = self.layout.of_rows(tensors[name])
            count = weight.numel() // (matrix.shape[0] * matrix.shape[2])
            own = matrix[:, first : first + count]
            weight.copy_(self.layout.tensor(own, weight.shape))
            first += count

    def add(self, step: Step, tensors: Mapping[str, Tensor], part: slice = slice(None)) -> None:
        """Add a step to the weights of some features and to the constant, in place.

        Args:
            step: The solution of the regression.
            tensors: The program's, by name.
            part: The features; all by default.
        """
        with torch.no_grad():
            matrix = self.matrix(tensors, len(step.weight))
            matrix[:, part] += step.weight.to(matrix)
            self.store(matrix, tensors)
            if self.constant:
                constant = self.layout.of_rows(tensors[self.constant])
                constant += self.sign * step.constant.reshape(constant.shape).to(constant)


def consumers(program: ExportedProgram, aliases: Mapping[str, str]) -> list[Contraction]:
    """Return all contractions of a program, in the order in which they are executed.

    Recurrent layers are written out, as they are in a `Script`.
    """
    stored = {node: aliases.get(name, name) for node, name in stored_names(program).items()}
    graph = program.graph_module.graph
    uses = Counter(
        stored[source.name]
        for node in graph.nodes
        for source in node.all_input_nodes
        if source.name in stored and node.op == "call_function"
    )
    graph = write_out(graph)
    reader = _Reader(stored, _from_weights(graph, stored), uses)
    live = live_nodes(graph)
    return [c for node in graph.nodes if node in live for c in reader.read(node)]


def _from_weights(graph: torch.fx.Graph, stored: Mapping[str, str]) -> set[Node]:
    computed: set[Node] = set()
    for node in graph.nodes:
        sources = node.all_input_nodes
        if node.name in stored or (sources and all(source in computed for source in sources)):
            computed.add(node)
    return computed


@dataclass(frozen=True)
class _Reader:
    stored: Mapping[str, str]
    from_weights: set[Node]
    uses: Mapping[str, int]

    def read(self, node: Node) -> Iterator[Contraction]:
        if operator_of(node) == CELL_SUMS:
            yield from self._read_cell(node)
            return
        layout = LAYOUTS.get(operator_of(node))
        if layout is None:
            return
        weight, x = argument(node, layout.weight), argument(node, layout.input)
        if weight.name not in self.stored or x in self.from_weights or weight.meta["val"].dim() < 2:
            return
        chain, end = self._chain(node)
        constant, sign = self._constant(node, layout, chain)
        tensor = self.stored[weight.name]
        yield Contraction(
            node=node.name,
            tensors=(tensor,),
            layout=layout,
            chain=tuple(link.name for link in chain),
            target=end.name,
            constant=constant,
            sign=sign,
            shared=self.uses[tensor] > 1,
        )

    def _read_cell(self, node: Node) -> Iterator[Contraction]:
        weights, layout = argument(node, "weights"), CELLS[argument(node, "part")]
        assert layout.part is not None
        wanted = [weights[position] for position in layout.part.matrices]
        if any(weight.name not in self.stored for weight in weights):
            return
        tensors = tuple(self.stored[weight.name] for weight in wanted)
        bias = layout.part.bias
        constant = ""
        if bias is not None and bias < len(weights) and len(shape_of(weights[bias])) == 1:
            constant = self.stored[weights[bias].name] if self._is_own(weights[bias]) else ""
        yield Contraction(
            node=node.name,
            tensors=tensors,
            layout=layout,
            chain=(),
            target=node.name,
            constant=constant,
            sign=1,
            shared=any(self.uses[tensor] > 1 for tensor in tensors),
            state=self.stored[weights[1].name],
        )

    def _chain(self, node: Node) -> tuple[list[Node], Node]:
        chain: list[Node] = []
        last = node
        while len(last.users) == 1:
            (user,) = last.users
            if self._is_sum(user, last):
                return chain, user
            if not self._is_affine(user, last):
                break
            chain.append(user)
            last = user
        return chain, last

    def _is_affine(self, node: Node, value: Node) -> bool:
        name = PASSES_ON.get(operator_of(node))
        if name is None or argument(node, name) is not value:
            return False
        others = [n for n in node.all_input_nodes if n is not value]
        return all(n in self.from_weights or _is_size(n) for n in others)

    def _is_sum(self, node: Node, value: Node) -> bool:
        """Return whether a node is a sum of the value and another activation of the same shape."""
        if operator_of(node) not in SUMS or "alpha" in given_arguments(node):
            return False
        others = [n for n in node.all_input_nodes if n is not value]
        return len(others) == 1 and shape_of(others[0]) == shape_of(value) == shape_of(node)

    def _constant(self, node: Node, layout: Layout, chain: list[Node]) -> tuple[str, int]:
        bias = argument(node, layout.bias) if layout.bias else None
        if isinstance(bias, Node) and self._is_own(bias) and len(shape_of(bias)) == 1:
            return self.stored[bias.name], 1
        if chain and operator_of(chain[0]) == "batch_norm.default":
            mean = argument(chain[0], "running_mean")
            if isinstance(mean, Node) and self._is_own(mean):
                return self.stored[mean.name], -1
        return self._added(node, layout), 1

    def _added(self, node: Node, layout: Layout) -> str:
        """Return the tensor, one value per channel, that is added to a node's value alone."""
        users = list(node.users)
        if len(users) != 1 or operator_of(users[0]) not in SUMS:
            return ""
        others = [source for source in users[0].all_input_nodes if source is not node]
        if len(others) != 1 or "alpha" in given_arguments(users[0]) or not self._is_own(others[0]):
            return ""
        value, added = node.meta["val"], others[0].meta["val"]
        dim = at_channels(value.dim(), layout)
        wanted = [1] * value.dim()
        wanted[dim] = value.shape[dim]
        shape = [1] * (value.dim() - added.dim()) + list(added.shape)
        return self.stored[others[0].name] if shape == wanted else ""

    def _is_own(self, node: Node) -> bool:
        return node.name in self.stored and self.uses[self.stored[node.name]] == 1


def _is_size(node: Node) -> bool:
    return not isinstance(node.meta.get("val"), torch.Tensor)
