"""Tell what was timed on a quiet machine from what another program's work has stretched."""

from __future__ import annotations

from collections.abc import Sequence

LIMIT = 0.1
"""Two looks that differ by more than this share of the shorter one do not agree."""

GRAIN_MS = 0.002
"""Differences up to this are the clock's own: operators are recorded in whole microseconds."""


def noise_of(looks: Sequence[float]) -> float:
    """Return by which share of the shortest look the second shortest is longer; 1 for one look.

    Other work makes a look longer, never shorter, so that two short ones that agree are the truth.

    Args:
        looks: The milliseconds of the same thing, timed several times.
    """
    if len(looks) < 2:
        return 1.0
    least, second = sorted(looks)[:2]
    return round(max(0.0, second - least - GRAIN_MS) / max(least, GRAIN_MS), 3)


def agree(looks: Sequence[float]) -> bool:
    """Return whether two looks at the same thing agree, so that what they say can be kept."""
    return noise_of(looks) <= LIMIT
