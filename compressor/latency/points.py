"""Choose the widths at which a layer is measured, and compute its time at those between."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from compressor.latency.layers import Layer
from compressor.latency.measured_steps import Step, step_names

Point = tuple[int, ...]
"""Widths of a layer's free sizes, in their order."""
Knots = tuple[tuple[int, ...], ...]
"""The measured widths of each free size, ascending."""
Steps = Mapping[str, Step]
"""The measured step of each size, by its name."""

_SHARES = {0: (), 1: (1, 0.75, 0.5, 0.25, 0.1), 2: (1, 0.75, 0.5, 0.25, 0.1), 3: (1, 0.5, 0.1)}
_CHEAP = (1, 0.5, 0.1)
_LEAST = 0.1


@dataclass(frozen=True)
class Grid:
    """The points at which one layer is measured.

    Widths on the grain (see `Step`) and off it run on different kernels, so both are measured.

    Attributes:
        steps: The step of each free size.
        knots: Per set of sizes that are off the grain (`()`: none) the widths of each free size,
            every combination of which is measured.
    """

    steps: tuple[Step, ...]
    knots: Mapping[Point, Knots]

    @property
    def points(self) -> Iterator[Point]:
        """All points that have to be measured, each once."""
        products = (itertools.product(*knots) for knots in self.knots.values())
        return iter(dict.fromkeys(itertools.chain.from_iterable(products)))

    def off_grain(self, widths: Sequence[int]) -> Point:
        """Return which of the sizes are off the grain; below one step there is none to be off."""
        return tuple(
            i
            for i, (width, step) in enumerate(zip(widths, self.steps, strict=True))
            if width % step.grain and width > step.every
        )


def grid_of(layer: Layer, steps: Steps) -> Grid:
    """Choose the grid of a layer.

    Its widths are multiples of the measured steps at geometric shares of the full widths, and one
    less where they are to be off the grain.
    """
    own_steps = tuple(steps.get(name, Step()) for name in layer.free)
    shares = _SHARES.get(len(own_steps), (1, 0.3)) if step_names(layer.kind) else _CHEAP
    on = [_knots(layer.full[n], s, shares) for n, s in zip(layer.free, own_steps, strict=True)]
    grained = [i for i, step in enumerate(own_steps) if step.grain > 1 and on[i][-1] > step.every]
    subsets = (c for n in range(len(grained) + 1) for c in itertools.combinations(grained, n))
    return Grid(own_steps, {off: _less_one(on, off, own_steps) for off in subsets})


def _knots(full: int, step: Step, shares: Iterable[float]) -> tuple[int, ...]:
    widths = {step.up(max(1, round(share * full))) for share in shares}
    if full * _LEAST < step.every:  # below one step kernels are others, and time rises smoothly
        widths |= {max(1, step.every // 4), step.every - 1} - {0}
    return tuple(sorted(widths))


def _less_one(knots: Sequence[tuple[int, ...]], off: Point, steps: Sequence[Step]) -> Knots:
    return tuple(
        tuple(width - (i in off and width > steps[i].every) for width in widths)
        for i, widths in enumerate(knots)
    )


@dataclass(frozen=True)
class Surface:
    """A layer's time at any widths: linear between the knots in each.

    Widths on the grain are rounded up to the measured step first.

    Attributes:
        grid: Where the layer was measured.
        times: Milliseconds at each point of the grid.
    """

    grid: Grid
    times: Mapping[Point, float]

    def at(self, widths: Sequence[int]) -> float:
        """Return the milliseconds at these widths of the free sizes."""
        off = self.grid.off_grain(widths)
        ends = [
            _between(knots, width if off else _round(width, step))
            for knots, width, step in zip(
                self.grid.knots[off], widths, self.grid.steps, strict=True
            )
        ]
        return sum(
            math.prod(share for _, share in corner) * self.times[tuple(k for k, _ in corner)]
            for corner in itertools.product(*ends)
        )


def _round(width: int, step: Step) -> int:
    return width if width < step.every else step.up(width)


def _between(knots: Sequence[int], width: int) -> tuple[tuple[int, float], ...]:
    """Return the knots around a width with their weights; beyond the ends the end itself."""
    if width <= knots[0] or width >= knots[-1]:
        return ((knots[0] if width <= knots[0] else knots[-1], 1.0),)
    at = bisect_right(knots, width)
    low, high = knots[at - 1], knots[at]
    share = (width - low) / (high - low)
    return ((low, 1 - share), (high, share)) if share else ((low, 1.0),)
