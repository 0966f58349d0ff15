"""Turn times into numbers that can be compared: percentiles, and a ratio with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES, INTERVAL = 2000, (2.5, 97.5)
"""How often rounds are drawn anew, and the percentiles of the ratios that 95 % lie between."""
Rounds = Sequence[Sequence[float]]
"""Milliseconds of each call, by round."""


@dataclass(frozen=True)
class Summary:
    """Percentiles of the milliseconds of one call, over all rounds."""

    calls: int
    p50: float
    p90: float
    p99: float


@dataclass(frozen=True)
class Ratio:
    """How many times longer the baseline takes than the other network.

    Attributes:
        value: The ratio of medians.
        low, high: Ends of the interval that holds the ratio with 95 per cent confidence.
    """

    value: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Return whether the interval leaves out 1, so that one of the two is faster."""
        return not self.low <= 1 <= self.high


@dataclass(frozen=True)
class Speedup(Ratio):
    """How many times longer the original takes than the smaller network.

    Attributes:
        noise: The ratio of the original to itself, measured in the same turns.
        is_noisy: Whether the machine disturbed the times so much that they say little.
    """

    noise: Ratio
    is_noisy: bool


WIDE, DIFFERS = 0.15, 0.05
"""Times are noisy if the interval is this wide, as a share of the ratio, or if the original differs
from itself by this."""


def speedup_of(original: Rounds, smaller: Rounds, again: Rounds, seed: int = 0) -> Speedup:
    """Compute the speedup, and judge its noise by the original's second measurement.

    Args:
        original, smaller, again: Milliseconds by round of the original, the smaller network and
            the original once more, all measured in the same turns.
        seed: Seed of the resampling.
    """
    ratio, noise = ratio_of(original, smaller, seed), ratio_of(original, again, seed)
    is_wide = ratio.high - ratio.low > WIDE * ratio.value
    is_noisy = is_wide or abs(noise.value - 1) > DIFFERS
    return Speedup(ratio.value, ratio.low, ratio.high, noise, is_noisy)


def summary_of(rounds: Rounds) -> Summary:
    """Compute the percentiles of all calls of all rounds together, in milliseconds."""
    times = np.concatenate([np.asarray(times) for times in rounds])
    return Summary(len(times), *(float(p) for p in np.percentile(times, [50, 90, 99])))


def ratio_of(baseline: Rounds, other: Rounds, seed: int = 0) -> Ratio:
    """Compute the ratio of two networks' median times, and its confidence interval.

    Whole rounds are resampled, both networks' together, since what disturbs the machine for a while
    disturbs all calls of a round (paired percentile bootstrap of the rounds' medians).
    """
    pairs = [np.array([np.median(times) for times in rounds]) for rounds in (baseline, other)]
    value = float(np.median(pairs[0]) / np.median(pairs[1]))
    count = len(pairs[0])
    if count < 3:
        return Ratio(value, value, value)
    drawn = np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))
    one, other = (np.median(medians[drawn], axis=1) for medians in pairs)
    low, high = np.percentile(one / other, INTERVAL)
    return Ratio(value, float(low), float(high))


def usual(times: Sequence[float]) -> float:
    """Return the mean of the middle half of the times.

    It is as steady as the median, and finer than the microseconds that a runtime records.
    """
    quarter = len(times) // 4
    return float(np.mean(sorted(times)[quarter : len(times) - quarter]))
