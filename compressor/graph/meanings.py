"""Follow what numbers say of positions from one operator to the next, over one program."""

from __future__ import annotations

from collections.abc import Iterator

from torch.fx import Node

from compressor.graph.axes import Dim
from compressor.graph.programs.nodes import operator_of
from compressor.graph.rules import elementwise
from compressor.graph.rules.call import Call, Equations, Meaning
from compressor.graph.rules.facts import CONVERTS, MOVES
from compressor.graph.rules.mixture import GROUPED
from compressor.graph.what_is_read import operands_of

Meanings = tuple[Meaning | None, ...]


class Told:
    """What the numbers of each node's results say of positions.

    Attributes:
        is_open: Whether the program has experts that data choose. In others nothing is followed,
            and what competes is kept.
    """

    def __init__(self, nodes: Iterator[Node]) -> None:
        """Look for products with experts' weights among a program's nodes."""
        self.is_open = any(operator_of(node) in GROUPED for node in nodes)
        self._by_node: dict[str, Meanings] = {}

    def of(self, node: Node) -> dict[str, Meaning]:
        """Return the meanings of a node's arguments, by name."""
        if not self.is_open:
            return {}
        found = ((name, self._one(source)) for name, source in operands_of(node))
        return {name: meaning for name, meaning in found if meaning is not None}

    def said_by(self, node: Node) -> Iterator[Dim]:
        """Yield the dimensions of whose positions a node's results say something."""
        yield from (meaning.of for meaning in self._by_node.get(node.name, ()) if meaning)

    def note_part(self, node: Node, source: Node, position: int) -> None:
        """Note that a node is one of several results of another."""
        self._by_node[node.name] = self._by_node.get(source.name, ())[position : position + 1]

    def note(self, node: Node, call: Call, equations: Equations) -> Iterator[Dim]:
        """Note what a node's results say; yield the dimensions of which it is no longer known."""
        if not self.is_open:
            return
        given = list(call.meanings.values())
        if equations.routing is not None:
            self._by_node[node.name] = equations.routing.meanings
        elif given and elementwise.RULES.get(call.op) is not elementwise.nothing:
            if self._passes_on(call, given):
                self._by_node[node.name] = (given[0],) * len(equations.outputs)
            else:
                yield from (meaning.of for meaning in given)

    def _passes_on(self, call: Call, given: list[Meaning]) -> bool:
        """Return whether an operator's results hold the numbers of its first argument alone."""
        is_first = set(call.meanings) == {next(iter(call.arguments))}
        is_moved = call.op in MOVES and given[0].says == "position"
        return is_first and (is_moved or call.op in CONVERTS)

    def _one(self, node: Node) -> Meaning | None:
        found = self._by_node.get(node.name, ())
        return found[0] if len(found) == 1 else None
