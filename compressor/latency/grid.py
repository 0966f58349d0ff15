"""At which widths a layer is measured, and what it takes at those between."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from compressor.latency.layers import Layer
from compressor.latency.steps import Step, step_names

Point = tuple[int, ...]
"""Widths of a layer's free sizes, in their order."""
Steps = Mapping[str, Step]
"""By the name of a size."""

_SHARES = {0: (), 1: (1, 0.75, 0.5, 0.25, 0.1), 2: (1, 0.75, 0.5, 0.25, 0.1), 3: (1, 0.5, 0.1)}
_CHEAP = (1, 0.5, 0.1)
_LEAST = _SHARES[1][-1]


@dataclass(frozen=True)
class Grid:
    """The points of one layer: every combination of the `knots` of its free sizes, and per size
    that has a grain one point off it, with all other sizes full."""

    names: tuple[str, ...]
    knots: tuple[tuple[int, ...], ...]
    steps: tuple[Step, ...]
    ragged: Mapping[int, int]

    @property
    def full(self) -> Point:
        """The widths when nothing is pruned."""
        return tuple(widths[-1] for widths in self.knots)

    @property
    def points(self) -> tuple[Point, ...]:
        """All that has to be measured."""
        return (*itertools.product(*self.knots), *(self.off(at) for at in self.ragged))

    def off(self, at: int) -> Point:
        """The point off the grain of one size."""
        return (*self.full[:at], self.ragged[at], *self.full[at + 1 :])


def grid_of(layer: Layer, steps: Steps) -> Grid:
    """Multiples of the measured steps, at geometric shares of the full widths."""
    stepped = step_names(layer.kind)
    found = [steps.get(name, Step()) for name in layer.free]
    shares = _SHARES.get(len(layer.free), (1, 0.3)) if stepped else _CHEAP
    knots = tuple(
        _knots(layer.full[name], step, shares) for name, step in zip(layer.free, found, strict=True)
    )
    ragged = {
        at: step.up(int(0.6 * widths[-1])) - 1
        for at, (widths, step) in enumerate(zip(knots, found, strict=True))
        if step.grain > 1 and step.up(int(0.6 * widths[-1])) in range(2 * step.every, widths[-1])
    }
    return Grid(layer.free, knots, tuple(found), ragged)


def _knots(full: int, step: Step, shares: Iterable[float]) -> tuple[int, ...]:
    widths = {min(full, step.up(max(1, round(share * full)))) for share in shares}
    if full * _LEAST < step.every:  # below one step kernels are others, and time may rise smoothly
        widths |= {width for width in (step.every // 4, step.every - 1) if 0 < width < full}
    return tuple(sorted(widths))


@dataclass(frozen=True)
class Surface:
    """A layer's time at any widths: linear between the knots in each width, after it was rounded up
    to the measured step; widths off the grain cost what the point off it costs more."""

    grid: Grid
    times: Mapping[Point, float]

    def at(self, widths: Sequence[int]) -> float:
        """Milliseconds at widths of the free sizes."""
        ends, factor = [], 1.0
        for i, width in enumerate(widths):
            ends.append(_between(self.grid.knots[i], self._rounded(i, width)))
            factor *= self._surcharge(i, width)
        total = 0.0
        for corner in itertools.product(*ends):
            weight = 1.0
            for _, share in corner:
                weight *= share
            total += weight * self.times[tuple(knot for knot, _ in corner)]
        return total * factor

    def _rounded(self, i: int, width: int) -> int:
        step, full = self.grid.steps[i], self.grid.knots[i][-1]
        return width if width < step.every else min(step.up(width), full)

    def _surcharge(self, i: int, width: int) -> float:
        step, off = self.grid.steps[i], self.grid.ragged.get(i)
        is_ragged = width % step.grain and step.every < width < self.grid.knots[i][-1]
        if off is None or not is_ragged or width == off:
            return 1.0
        point = self.grid.off(i)
        clean = (*point[:i], step.up(off), *point[i + 1 :])
        return self.times[point] / Surface(self.grid, self.times).at(clean)


def _between(knots: Sequence[int], width: int) -> tuple[tuple[int, float], ...]:
    """The knots around a width with their weights; beyond the ends the end itself."""
    if width <= knots[0] or width >= knots[-1]:
        return ((knots[0] if width <= knots[0] else knots[-1], 1.0),)
    at = bisect_right(knots, width)
    low, high = knots[at - 1], knots[at]
    share = (width - low) / (high - low)
    return ((low, 1 - share), (high, share)) if share else ((low, 1.0),)
