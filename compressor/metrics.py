"""Name the metrics, and say of each which way is better and what a point of it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

HIGHER, LOWER = "higher", "lower"
"""Which way a metric is better."""

TOP1 = "top1"
FIDELITY = "fidelity"
PERPLEXITY = "perplexity"
EMBEDDING_SHIFT, SAME_NEIGHBOUR = "embedding_shift", "same_neighbour"

SHARES = (TOP1, SAME_NEIGHBOUR)
"""Metrics that are shares of the samples, shown in per cent."""


@dataclass(frozen=True)
class Scale:
    """How the values of a metric compare.

    Attributes:
        better: `HIGHER` or `LOWER`.
        is_relative: Whether a point is a hundredth of the original's value, else one of 1.
    """

    better: str = HIGHER
    is_relative: bool = False

    def lost(self, before: float, after: float) -> float:
        """Return how much worse a value is than the original's, in points; negative if better."""
        worse = before - after if self.better == HIGHER else after - before
        return 100 * worse / abs(before) if self.is_relative and before else 100 * worse

    def is_better(self, one: float, other: float) -> bool:
        """Return whether one value is better than another."""
        return one > other if self.better == HIGHER else one < other


SCALES: Mapping[str, Scale] = {
    PERPLEXITY: Scale(LOWER, is_relative=True),
    EMBEDDING_SHIFT: Scale(LOWER),
}
"""The scales of metrics that are not shares of which more is better."""


def scale_of(name: str, *, is_lower_better: bool = False) -> Scale:
    """Return the scale of a metric.

    Args:
        name: Its name.
        is_lower_better: What is known of one that is not of this tool.
    """
    return SCALES.get(name, Scale(LOWER if is_lower_better else HIGHER))
