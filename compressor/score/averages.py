"""Average over batches, and over the processes of a distributed run.

So every criterion gives the same scores on all processes.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

import numpy as np
import torch

from compressor.errors import UsageError
from compressor.processes import all_summed
from compressor.score.criterion import Floats

Key = TypeVar("Key", bound=Hashable)


class Average(Generic[Key]):
    """The weighted means of named vectors.

    All processes name the same vectors in the same order (the network's groups give it), also
    those that get no batch.
    """

    def __init__(self, sizes: Mapping[Key, int]) -> None:
        self._sums: dict[Key, Floats] = {key: np.zeros(size) for key, size in sizes.items()}
        self._weights: dict[Key, float] = dict.fromkeys(sizes, 0.0)

    def add(self, key: Key, vector: Floats, weight: float = 1.0) -> None:
        """Add one more vector to the mean of its name."""
        self._sums[key] += weight * vector
        self._weights[key] += weight

    def result(self) -> dict[Key, Floats]:
        """Return the means over everything that any process added.

        Raises:
            UsageError: No process added anything.
        """
        if not self._sums:
            return {}
        flat = np.concatenate([*self._sums.values(), list(self._weights.values())])
        totals = all_summed({"": torch.from_numpy(flat)})[""].numpy()
        *sums, weights = np.split(totals, np.cumsum([len(v) for v in self._sums.values()]))
        if not weights.any():
            raise UsageError("the data gave no batch", where="--data", next_step="give more data")
        return {
            key: total / weight
            for key, total, weight in zip(self._sums, sums, weights, strict=True)
            if weight
        }
