"""Run a traced program with mixtures of experts, and note what routers send through the experts."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from compressor.graph.network import Network, Router
from compressor.graph.programs.nodes import given_arguments, operand, operator_of
from compressor.graph.rules.facts import CONVERTS
from compressor.graph.rules.mixture import GROUPED
from compressor.records import Trace
from compressor.score.criterion import Floats
from compressor.score.traced_program import Program


class RoutedProgram(Program):
    """A traced program that notes which experts rows are sent to, what they are given and add.

    Attributes:
        counted: Which rows are no padding, [rows] bool; None for all.
        groups: Names of the groups of experts.
        products: Names of the nodes that multiply rows with their experts' weights.
    """

    def __init__(self, trace: Trace, network: Network, device: str) -> None:
        """Take the network's analysis, and the device where the program runs."""
        super().__init__(trace, (), device)
        self.counted: Tensor | None = None
        routers = {n: r for n, r in network.routers.items() if self._has((*r.choices, *r.products))}
        self.groups = tuple(routers)
        self.products = {n for r in routers.values() for n in r.products if self._is_product(n)}
        self._choices = {name: router.choices[0] for name, router in routers.items()}
        self._sums = {name: self._sum_of(router) for name, router in routers.items()}
        self._rows = {n: self._rows_of(r) for r in routers.values() for n in r.products}
        self._noted = {*self._choices.values(), *self._sums.values(), *self._rows.values()}
        self._found: dict[str, Tensor] = {}
        self._squares: dict[str, Floats] = {}

    def added(self, group: str, experts: int) -> Floats:
        """Return what each of a group's experts added in the last batch, [experts].

        That is the energy of its outputs times the router's weights, or else how often it was
        chosen.
        """
        chosen = self._found[self._choices[group]]  # [rows, chosen]
        values = self._found.get(self._sums[group])  # [rows, chosen, width]
        energies = torch.ones_like(chosen) if values is None else values
        if self.counted is not None and len(chosen) == len(self.counted):
            energies = energies * self.counted.to(energies.device).unsqueeze(-1)
        totals = torch.zeros(experts, dtype=torch.float64)
        totals.index_add_(0, chosen.reshape(-1).cpu(), energies.reshape(-1).cpu().double())
        found: Floats = totals.numpy()
        return found

    def given(self, product: str) -> Floats:
        """Return the sums of squares of what each expert was given, [experts * features]."""
        return self._squares[product]

    def run_node(self, node: Node) -> Any:
        if node.name in self.products:
            self._squares[node.name] = self._sums_of_squares(node)
        result = super().run_node(node)
        if node.name in self._noted:
            self._found[node.name] = _to_note(result)
        return result

    def _sums_of_squares(self, node: Node) -> Floats:
        x, _, ends = (self.env[value] for value in list(given_arguments(node).values())[:3])
        squares, last = _squares(x), ends.tolist()
        tokens = self._found.get(self._rows[node.name])
        if self.counted is not None and tokens is not None:
            squares = squares * self.counted.to(x.device)[tokens].unsqueeze(-1)
        parts = zip([0, *last[:-1]], last, strict=True)
        sums = torch.stack([squares[begin:end].sum(0) for begin, end in parts])
        found: Floats = sums.reshape(-1).cpu().double().numpy()
        return found

    def _is_product(self, name: str) -> bool:
        return operator_of(self.nodes[name]) in GROUPED

    def _has(self, names: Collection[str]) -> bool:
        return all(name in self.nodes for name in names)

    def _sum_of(self, router: Router) -> str:
        """Return the node whose result are the chosen experts' outputs, [rows, chosen, width]."""
        values, _ = self.nodes[router.choices[0]].meta["val"]
        wanted = [*map(str, values.shape)]
        for node in self._after(router.products):
            value = node.meta.get("val")
            if isinstance(value, Tensor) and [*map(str, value.shape[:-1])] == wanted:
                return node.name
        return ""

    def _rows_of(self, router: Router) -> str:
        """Return the node that says which row is each of those that are sorted by expert."""
        for name in filter(self._is_product, router.products):
            source = self.nodes[name].all_input_nodes[0]
            while operator_of(source) in CONVERTS:
                source = source.all_input_nodes[0]
            if operator_of(source) == "index.Tensor":
                index = operand(source, "indices.0")
                return index.name if index is not None else ""
        return ""

    def _after(self, names: Collection[str]) -> Iterator[Node]:
        """Yield the nodes that depend on some, in order."""
        after = {self.nodes[name] for name in names}
        for node in self.program.graph.nodes:
            if node not in after and after.intersection(node.all_input_nodes):
                after.add(node)
                yield node


def _to_note(result: Any) -> Tensor:
    """Return of a choice the positions, of numbers their energy along the last dimension."""
    if isinstance(result, tuple):
        positions: Tensor = result[1]
        return positions
    tensor: Tensor = result
    return _squares(tensor).sum(-1) if tensor.is_floating_point() else tensor


def _squares(x: Tensor) -> Tensor:
    """Square numbers, in single precision at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32)).square()
