"""Measure in which steps a layer's time rises with a width.

A vectorised kernel works on blocks of channels, so that 17 cost what 32 cost; and where a width
does not divide well, the runtime may fall back to a slower kernel, so that 31 cost more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from compressor.latency.kernels import KERNELS
from compressor.latency.layer_bench import Bench, Case
from compressor.latency.noise import agree

WIDTHS = range(16, 65)
_STEPS = (32, 16, 8, 4, 2)
_LOOKS, _MOST = 3, 8
_SAMPLES = ("batch", "rows")  # what grows with the samples in a call
_EXTRA = 0.15  # less is noise, or a padded end; a kernel of another kind costs more
_EVEN = 1 / 3  # of an even rise; more than that is no step
_GROWTH = 1.3  # of 64 over 16 channels; less is no sign of steps but of a fixed cost


@dataclass(frozen=True)
class Step:
    """How a layer's time rises with a width.

    Attributes:
        every: Widths cost as much as the next multiple of this.
        grain: Widths that are no multiple of this may cost more than that.
    """

    every: int = 1
    grain: int = 1

    def up(self, width: int) -> int:
        """Return the next multiple of the step, at or above the width."""
        return -(-width // self.every) * self.every


def step_names(kind: str) -> tuple[str, ...]:
    """Return the names of the sizes of a kind for which a step can be measured."""
    return KERNELS[kind].stepped


def measure_step(kind: str, name: str, bench: Bench, samples: int = 1) -> tuple[Step, bool]:
    """Measure the step of one size of a kind of layer on this machine.

    All widths are timed several times, until two looks agree and one more changes nothing.

    Returns:
        The step, and whether it is settled: on a busy machine it may never be.
    """
    probe, literals = KERNELS[kind].probe
    sizes = {n: size * (samples if n in _SAMPLES else 1) for n, size in probe.items()}
    cases = [Case(kind, {**sizes, name: width}, literals) for width in WIDTHS]
    looks: list[list[float]] = []
    steps: list[Step] = []
    while len(looks) < _MOST:
        looks.append(bench.times_ms(cases))
        least = map(min, zip(*looks, strict=True))
        steps.append(step_in(dict(zip(WIDTHS, least, strict=True))))
        is_settled = steps[-2:-1] == steps[-1:] and agree([sum(look) for look in looks])
        if is_settled and len(looks) >= _LOOKS:
            return steps[-1], True
    return steps[-1], False


def step_in(times: Mapping[int, float]) -> Step:
    """Find the largest step within which time does not rise, noise apart.

    Args:
        times: Milliseconds at each of WIDTHS.
    """
    if times[WIDTHS[-1]] < _GROWTH * times[WIDTHS[0]]:
        return Step()
    for every in _STEPS:
        # Halves of a step divide best of all widths within it, so they show a finer step.
        if all(_rise(times, every, grain) < _EVEN for grain in (1, every // 2)):
            return Step(every, _grain(times, every))
    return Step()


def _rise(times: Mapping[int, float], every: int, grain: int) -> float:
    """Return how much time rises within the steps, as a share of what it would if it rose evenly.

    Widths that cost more than the end of their step count as those that cost the same.
    """
    seen = even = 0.0
    for width, end in _within(times, every, grain):
        seen += max(0.0, times[end] - times[width])
        even += (times[end] - times[end - every]) * (end - width) / every
    return seen / even if even > 0 else math.inf


def _grain(times: Mapping[int, float], every: int) -> int:
    """Return the smallest number whose multiples cost no more than the step's."""
    for grain in (1 << n for n in range(every.bit_length() - 1)):
        shares = [times[width] / times[end] for width, end in _within(times, every, grain)]
        if np.quantile(shares, 0.9) <= 1 + _EXTRA:
            return grain
    return every


def _within(times: Mapping[int, float], every: int, grain: int) -> Iterator[tuple[int, int]]:
    """Yield the multiples of the grain that are none of the step, each with the end of its step."""
    for width in times:
        end = Step(every).up(width)
        if width % grain == 0 and width % every and end in times and end - every in times:
            yield width, end
