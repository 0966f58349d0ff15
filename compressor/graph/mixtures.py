"""Tell which axes are experts of a mixture, of which a router chooses some for each row."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from compressor.graph.axes import Axis, Dim, leaves
from compressor.graph.network import Router
from compressor.graph.rules.call import Routing
from compressor.graph.solver import Reason, Solver

EXPERTS = "experts"
"""The role of channels that are whole experts. Zeros do not stand for dropping them: a router would
choose them still."""


ALIGNED = 8
"""Numbers of two bytes in 16 bytes, at multiples of which experts' kernels want rows to begin."""


@dataclass(frozen=True)
class Routings:
    """What operators have to do with experts, noted as a program is walked over.

    Attributes:
        competing: Dimensions that are kept unless they are experts, with the reason.
        stacked: Node -> dimension of the weights along which data choose.
        choices: Node -> the dimension along which it chooses, and how many.
        aligned: Dimensions whose sizes kernels take in multiples of `ALIGNED` alone.
    """

    competing: list[tuple[Dim, Reason]] = field(default_factory=list)
    stacked: dict[str, Dim] = field(default_factory=dict)
    choices: dict[str, tuple[Dim, int]] = field(default_factory=dict)
    aligned: list[Dim] = field(default_factory=list)

    def note(self, node: str, routing: Routing) -> None:
        """Note what the operator of a node has to do with experts."""
        self.stacked.update((node, dim) for dim in routing.stacked)
        self.aligned.extend(routing.aligned)
        if routing.chosen:
            self.choices.update((node, (dim, routing.chosen)) for dim in routing.competing)

    def settle(self, solver: Solver, taken: Iterable[Dim]) -> None:
        """Protect in `solver` what was to be kept unless it is experts, and is not.

        Args:
            solver: Has the solved form of dimensions.
            taken: Dimensions that are used in other ways too, such as summed over.
        """
        others = {axis for dim in taken for axis in leaves(solver.normal(dim))}
        experts = self.least(solver).keys() - others
        for dim, reason in self.competing:
            for axis in set(leaves(solver.normal(dim))) - experts:
                solver.protect(axis, reason)

    def least(self, solver: Solver) -> dict[Axis, int]:
        """Return the experts' axes, and how many of each a router takes at a time."""
        found: dict[Axis, int] = {}
        stacks = {axis for axis in self._stacks(solver) if not solver.is_kept(axis)}
        for dim, count in self.choices.values():
            for axis in stacks & set(leaves(solver.normal(dim))):
                found[axis] = max(count, found.get(axis, 0))
        return found

    def steps(self, solver: Solver) -> dict[Axis, int]:
        """Return of axes that kernels want aligned the steps in which they may lose positions."""
        axes = {axis for dim in self.aligned for axis in leaves(solver.normal(dim))}
        return {axis: math.gcd(axis.size, ALIGNED) for axis in axes}

    def routers(self, solver: Solver, axes: Mapping[str, Axis]) -> dict[str, Router]:
        """Return where the experts of groups, by name, are chosen and used."""
        chosen = {n: set(leaves(solver.normal(dim))) for n, (dim, _) in self.choices.items()}
        used = {node: solver.normal(dim) for node, dim in self.stacked.items()}
        return {
            name: Router(
                tuple(node for node, along in chosen.items() if axis in along),
                tuple(node for node, along in used.items() if along is axis),
            )
            for name, axis in axes.items()
            if axis in self.least(solver)
        }

    def _stacks(self, solver: Solver) -> Iterator[Axis]:
        for dim in map(solver.normal, self.stacked.values()):
            if isinstance(dim, Axis):
                yield dim
