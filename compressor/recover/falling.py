"""Tell whether a training's loss fell by more than its noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

BEGINNING = 0.1
"""The share of the steps that a training of one epoch is compared with."""


@dataclass(frozen=True)
class Course:
    """The losses of a training's steps, as means over its beginning and its end.

    Attributes:
        first: Mean loss of the first epoch's steps; of one epoch, that of its first tenth.
        last: Mean loss of the last epoch's steps; of one epoch, that of its second half.
        noise: Standard error of the difference of two such means.
        has_epochs: Whether there is more than one epoch.
    """

    first: float
    last: float
    noise: float
    has_epochs: bool

    @property
    def falls(self) -> bool:
        """Return whether the loss fell by more than its noise."""
        return self.last < self.first - self.noise

    @classmethod
    def of(cls, losses: Sequence[float], epochs: int) -> Course | None:
        """Take the beginning and the end of a training; None of a training of one step.

        Args:
            losses: The mean loss of each step.
            epochs: How many epochs they make up, of equally many steps.
        """
        if len(losses) < 2:
            return None
        count = len(losses) // epochs
        if epochs > 1:
            first, last = losses[:count], losses[-count:]
        else:
            first, last = losses[: max(1, round(BEGINNING * count))], losses[count // 2 :]
        spread = stdev(last) if len(last) > 1 else 0.0
        noise = spread * math.sqrt(1 / len(first) + 1 / len(last))
        return cls(fmean(first), fmean(last), noise, epochs > 1)
