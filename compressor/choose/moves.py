"""Order the moves by which units become narrower."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.choose.budget import Clock
from compressor.choose.scopes import Scores
from compressor.choose.units import Unit
from compressor.graph.axes import Axis
from compressor.graph.network import Network

Ints = npt.NDArray[np.int64]
FINEST = 64
"""The most widths of a unit that are looked at, where moves are ordered by time."""


@dataclass(frozen=True)
class Moves:
    """Moves one after the other: unit `units[i]` gets down to `widths[i]` channels."""

    units: Ints
    widths: Ints

    def __len__(self) -> int:
        return len(self.units)

    def after(self, count: int, sizes: Ints) -> Ints:
        """Return the units' widths after so many moves."""
        widths = sizes.copy()
        np.minimum.at(widths, self.units[:count], self.widths[:count])
        return widths

    def give_back(self, count: int, sizes: Ints, fits: Callable[[Ints], bool]) -> Ints:
        """Return the widths after so many moves, without those that the budget can do without.

        They are undone dearest first: a large last move may save more than was asked for.
        """
        widths = self.after(count, sizes)
        for i in range(count - 1, -1, -1):
            unit = self.units[i]
            if widths[unit] == self.widths[i]:
                wider = widths.copy()
                wider[unit] = self.after(i, sizes)[unit]
                widths = wider if fits(wider) else widths
        return widths

    def in_between(
        self, widths: Ints, count: int, sizes: Ints, fits: Callable[[Ints], bool]
    ) -> Iterator[Ints]:
        """Yield the widths with the unit that moved last wider, each time closer to the budget.

        It gets wider by half of what is left of its step, where that fits. The last widths are
        right to within one channel.
        """
        last = next((u for u in self.units[:count][::-1] if widths[u] < sizes[u]), None)
        if last is None:
            return
        wider = self.widths[(self.units == last) & (self.widths > widths[last])]
        step = int(min(wider, default=sizes[last]) - widths[last])
        while step > 1:
            step = (step + 1) // 2
            tried = widths.copy()
            tried[last] = min(sizes[last], widths[last] + step)
            widths = tried if fits(tried) else widths
            yield widths


def moves(taken: Sequence[tuple[int, int]]) -> Moves:
    """Build moves from pairs of a unit's number and a width."""
    both = np.array(taken, np.int64).reshape(-1, 2)
    return Moves(both[:, 0], both[:, 1])


def by_rank(
    units: Sequence[Unit],
    ranked_by: Scores,
    of_several: Callable[[npt.NDArray[np.float64]], Any],
) -> Moves:
    """Order moves by the rank of the channels that they drop, the lowest first.

    Args:
        units: The units that compete.
        ranked_by: Per group one rank per channel.
        of_several: Makes one rank of those of channels that go together.
    """
    ranked: list[tuple[float, int, int, int]] = []
    for number, unit in enumerate(units):
        each = unit.ranks(ranked_by)
        before = 0
        for width in unit.widths:
            dropped = unit.size - width
            ranked.append((float(of_several(each[before:dropped])), before, number, width))
            before = dropped
    ranked.sort()
    return moves([(unit, width) for rank, _, unit, width in ranked if np.isfinite(rank)])


# -- by the clock ----------------------------------------------------------------------------------


def by_time(network: Network, units: Sequence[Unit], scores: Scores, clock: Clock) -> Moves:
    """Order moves by the score that they lose per millisecond saved, the least first.

    A greedy knapsack: what a move saves depends on how wide its neighbours still are, so a move is
    looked at again before it is taken. It may leave out widths that save nothing by themselves.
    """
    descents = [_Descent(network, unit, scores, clock) for unit in units]
    sizes = {axis: axis.size for descent in descents for axis in descent.axes}
    queue = [(*descent.best(sizes), number) for number, descent in enumerate(descents)]
    heapq.heapify(queue)
    taken: list[tuple[int, int]] = []
    while queue:
        _, _, number = heapq.heappop(queue)
        density, width = descents[number].best(sizes)
        if not width:
            continue
        if queue and (density, width, number) > queue[0]:
            heapq.heappush(queue, (density, width, number))
            continue
        taken.append((number, width))
        sizes |= descents[number].sizes(width)
        descents[number].width = width
        heapq.heappush(queue, (*descents[number].best(sizes), number))
    return moves(taken)


class _Descent:
    """One unit on its way to fewer channels."""

    def __init__(self, network: Network, unit: Unit, scores: Scores, clock: Clock) -> None:
        self.axes, self.times = unit.axes(network), unit.times
        self.layers = tuple(
            {layer.name: layer for axis in self.axes for layer in clock.layers_of(axis)}.values()
        )
        self.clock, self.size, self.width = clock, unit.size, unit.size
        self.widths = unit.widths[:: -(-len(unit.widths) // FINEST) or 1]
        self.lost = np.concatenate([[0.0], np.cumsum(unit.ranks(scores))])

    def sizes(self, width: int) -> dict[Axis, int]:
        """Return the sizes of the unit's axes at a width."""
        return {axis: width * n for axis, n in zip(self.axes, self.times, strict=True)}

    def best(self, sizes: Mapping[Axis, int]) -> tuple[float, int]:
        """Return the least loss per millisecond and its width; width 0 where none saves."""
        now = self.clock.layers_ms(self.layers, sizes)
        lost = self.lost[self.size - self.width]
        best = (np.inf, 0)
        for width in self.widths:
            if width >= self.width:
                continue
            smaller = {**sizes, **self.sizes(width)}
            saved = now - self.clock.layers_ms(self.layers, smaller)
            if saved > 0:
                density = float(self.lost[self.size - width] - lost) / saved
                best = min(best, (density, width))
        return best
