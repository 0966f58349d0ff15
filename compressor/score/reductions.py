"""Reduce the rows of a group's parameters to one number per channel."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from compressor.score.criterion import Floats

Reduction = Callable[[Floats], Floats]
"""A function from [parameters, channels] to [channels]; parameters that produce the channels
stand first."""


def _product(rows: Floats) -> Floats:
    """Compute the product over rows, [channels], scaled so that the largest is 1.

    The product of many small numbers would otherwise leave the range of numbers.
    """
    with np.errstate(divide="ignore"):
        logs = np.log(rows).sum(axis=0)
    largest = logs.max()
    product: Floats = np.exp(logs - largest) if np.isfinite(largest) else np.zeros_like(logs)
    return product


REDUCTIONS: Mapping[str, Reduction] = {
    "mean": lambda rows: np.asarray(rows.mean(axis=0)),
    "sum": lambda rows: np.asarray(rows.sum(axis=0)),
    "max": lambda rows: np.asarray(rows.max(axis=0)),
    "product": _product,
    "first": lambda rows: rows[0],
}
"""Reductions by name. Li et al. 2017 rank by the layer that makes the channels alone ("first");
Fang et al. 2023, DepGraph, compare sums, means, maxima and products over the coupled parameters."""
