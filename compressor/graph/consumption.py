"""Note what operators do with weights: what is computed from them, and where they sum channels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from torch.fx import Node

from compressor.graph.axes import Axis, Dim, coordinates, leaves
from compressor.graph.groups import Uses
from compressor.graph.network import Consumer, Shape
from compressor.graph.programs.nodes import is_view, operand
from compressor.graph.rules import Call, Equations
from compressor.graph.solver import Solver


class Consumption:
    """What a walk over one program finds out about its weights, node by node.

    Attributes:
        widths: The channels that each layer with weights makes.
    """

    def __init__(self, uses: Uses) -> None:
        """Take the record of the dimensions' uses, which is added to."""
        self.uses = uses
        self.widths: list[Dim] = []
        self._from_weights: set[str] = set()
        self._zeros_stay: set[str] = set()
        self._summed: list[tuple[Node, Dim]] = []

    def note_stored(self, node: Node) -> None:
        """Note that a placeholder is a stored tensor."""
        self._from_weights.add(node.name)
        self._zeros_stay.add(node.name)

    def note_part(self, node: Node, source: Node) -> None:
        """Note that a node is one of several results of another."""
        for kind in (self._from_weights, self._zeros_stay):
            if source.name in kind:
                kind.add(node.name)

    def note(self, node: Node, tensors: list[Node], call: Call, equations: Equations) -> None:
        """Note what an operator does with its tensors, by its equations."""
        weights = {n.name for n in tensors if n.name in self._from_weights}
        if len(weights) == len({n.name for n in tensors}):
            self._from_weights.add(node.name)
            if (equations.keeps_zeros or is_view(node)) and weights <= self._zeros_stay:
                self._zeros_stay.add(node.name)
        operands = [operand(node, argument) for argument, _ in equations.contracted]
        by_weights = any(source is not None and source.name in weights for source in operands)
        if not by_weights:
            self.uses.heads.extend(equations.heads)
            self.uses.head_width.extend(equations.head_width)
        elif equations.width is not None:
            self.widths.append(equations.width)
        for (argument, dim), source in zip(equations.contracted, operands, strict=True):
            if source is None or (by_weights and source.name not in weights):
                continue
            summed = call.shape(argument)[dim]
            if by_weights:
                self.uses.contracted.add(summed)
                self._summed.append((node, summed))
            if source.name not in self._zeros_stay:
                self.uses.computed.add(summed)

    def consumers(
        self, solver: Solver, stored: Mapping[str, Shape], shapes: Mapping[str, tuple[Shape, ...]]
    ) -> Iterator[Consumer]:
        """Yield the consumers: where exactly one dimension of an activation meets a parameter's.

        Args:
            solver: Has the solved form of dimensions.
            stored: The dimensions of stored tensors, tied ones once.
            shapes: The dimensions of every node's results, by the node's name.
        """
        places = {dim: (n, i) for n, shape in stored.items() for i, dim in enumerate(shape)}
        for node, summed in self._summed:
            met = [
                (source.name, at)
                for source in node.all_input_nodes
                if source.name not in self._from_weights
                for shape in shapes.get(source.name, ())
                for at, dim in enumerate(shape)
                if _runs_along(solver.normal(dim), solver.normal(summed), solver)
            ]
            if summed in places and len(met) == 1:
                yield Consumer(node.name, *places[summed], *met[0])


def _runs_along(dim: Dim, other: Dim, solver: Solver) -> bool:
    """Return whether each channel has the same positions in both; `dim` may repeat `other`."""
    free = {axis for axis in leaves(other) if not solver.is_kept(axis)}
    if not free or dim.size % other.size or not free <= set(leaves(dim)):
        return False
    return all(_is_repeated(dim, other, axis) for axis in free)


def _is_repeated(dim: Dim, other: Dim, axis: Axis) -> bool:
    """Return whether the axis's indices in `dim` are those in `other`, over and over."""
    times = dim.size // other.size
    return np.array_equal(coordinates(dim, axis), np.tile(coordinates(other, axis), times))
