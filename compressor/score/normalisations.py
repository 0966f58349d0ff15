"""Make the scores of different groups comparable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from compressor.score.criterion import Floats

Normalisation = Callable[[Floats], Floats]
"""A function from the scores of one group to comparable ones, in the same order."""


def _by(size: Callable[[Floats], Any]) -> Normalisation:
    """Return a normalisation that divides by a size; scores whose size is 0 stay."""

    def divide(scores: Floats) -> Floats:
        divisor = float(size(scores))
        return scores / divisor if divisor > 0 else scores

    return divide


def _standardise(scores: Floats) -> Floats:
    if scores.min() == scores.max():  # rounding would have a deviation
        return np.zeros_like(scores)
    return _by(np.std)(scores - scores.mean())


def lamp(scores: Floats) -> Floats:
    """Divide each score by the sum of all that are not smaller, so the largest gets 1.

    Equal scores count in their order, the later as the larger (Lee et al. 2021, LAMP).
    """
    order = np.argsort(scores, kind="stable")[::-1]
    rest = np.cumsum(scores[order])
    shares = np.zeros_like(scores)
    np.divide(scores[order], rest, out=rest, where=rest > 0)
    shares[order] = rest
    return shares


NORMALISATIONS: Mapping[str, Normalisation] = {
    "none": lambda scores: scores,
    "mean": _by(np.mean),
    "sum": _by(np.sum),
    "max": _by(np.max),
    "norm": _by(np.linalg.norm),
    "standardise": _standardise,
    "lamp": lamp,
}
"""Normalisations by name. Molchanov et al. 2017 divide by the layer's L2 norm ("norm"); the mean
leaves a group's size out, the sum does not; "standardise" has mean 0 and deviation 1."""
