"""In which steps a layer's time rises with a width: measured, not assumed.

A vectorised kernel works on blocks of channels, so that 17 cost what 32 cost; and where a width
does not divide well, the runtime may fall back to a slower kernel, so that 31 cost more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from compressor.latency.bench import Bench, Case
from compressor.latency.kernels import KERNELS

WIDTHS = range(16, 65)
_STEPS = (32, 16, 8, 4, 2)
_LOOKS = 3
_NOISE = 0.04
_GROWTH = 1.3  # of 64 over 16 channels; less is no sign of steps but of a fixed cost


@dataclass(frozen=True)
class Step:
    """Widths cost as much as the next multiple of `every`; those that are no multiple of `grain`
    may cost more than that."""

    every: int = 1
    grain: int = 1

    def up(self, width: int) -> int:
        """The next multiple of the step."""
        return -(-width // self.every) * self.every


def step_names(kind: str) -> tuple[str, ...]:
    """The sizes of a kind for which a step can be measured."""
    return KERNELS[kind].stepped


def measure_step(kind: str, name: str, bench: Bench) -> Step:
    """The step of one size of a kind of layer on this machine."""
    sizes, literals = KERNELS[kind].probe
    cases = [Case(kind, {**sizes, name: width}, literals) for width in WIDTHS]
    looks = zip(*(bench.times_ms(cases) for _ in range(_LOOKS)), strict=True)
    return step_in(dict(zip(WIDTHS, map(min, looks), strict=True)))


def step_in(times: Mapping[int, float]) -> Step:
    """The largest step within which (noise apart) no width is cheaper than the last one."""
    if times[WIDTHS[-1]] < _GROWTH * times[WIDTHS[0]]:
        return Step()
    for every in _STEPS:
        if np.quantile(_shares(times, every, grain=1), 0.1) >= 1 - _NOISE:
            return Step(every, _grain(times, every))
    return Step()


def _grain(times: Mapping[int, float], every: int) -> int:
    """The smallest number whose multiples cost no more than the step's."""
    candidates = [2**n for n in range(every.bit_length() - 1)]
    return next(
        (
            grain
            for grain in candidates
            if np.quantile(_shares(times, every, grain), 0.9) <= 1 + 2 * _NOISE
        ),
        every,
    )


def _shares(times: Mapping[int, float], every: int, grain: int) -> list[float]:
    """The time of each multiple of the grain over that of the next multiple of the step."""
    step = Step(every)
    return [
        times[width] / times[step.up(width)]
        for width in times
        if width % grain == 0 and width % every and step.up(width) in times
    ]
