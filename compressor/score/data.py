"""Give calibration data in the batches that a traced program takes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Any

from compressor.least_squares import Memory, samples_that_fit
from compressor.loading.data import Batches, Data, batches
from compressor.options import ScoringOptions
from compressor.padding import counted_of, counted_targets
from compressor.records import Trace
from compressor.recover.evaluation import IGNORED


class CalibrationBatches:
    """Some of the training data, in batches that a traced program takes.

    Where the data is augmented, a changed copy of each sample comes too. A program whose batch is
    fixed gets batches of exactly that size; others get smaller ones where memory asks for it.
    """

    def __init__(self, trace: Trace, train: Data, options: ScoringOptions) -> None:
        self.train, self.seed, self.augment = train, options.seed, options.augment
        self.is_static = trace.batch_symbol is None
        self.size = trace.batch if self.is_static else _size_of_batches(trace, options)
        self.limit = max(self.size, options.calibration) if self.is_static else options.calibration

    @property
    def samples(self) -> int:
        """Return how many samples are run; 0 where a fixed batch is larger than the data."""
        whole = self._batches("none")
        return 0 if self.is_static and whole.samples < self.size else whole.samples

    @property
    def obstacle(self) -> str:
        """Return in words why the program cannot be run on the data; "" where it can."""
        if self.samples:
            return ""
        return (
            f"the network is traced for a batch of {self.size}, and there are {len(self.train)} "
            "samples to calibrate on"
        )

    def batches(self) -> Several:
        """Return the batches, the same ones at every call; passes over them differ."""
        looks = dict.fromkeys(("none", self.augment))
        return Several(tuple(map(self._batches, looks)))

    def _batches(self, augment: str) -> Batches:
        return batches(
            self.train,
            self.size,
            seed=self.seed,
            limit=self.limit,
            augment=augment,
            is_static=self.is_static,
        )


def _size_of_batches(trace: Trace, options: ScoringOptions) -> int:
    """Return the samples of a batch: fewer than the options say where values take much memory."""
    memory = Memory.of(options.memory_bytes)
    return min(options.batch_size, samples_that_fit(trace.program, memory.values))


@dataclass(frozen=True)
class Several:
    """An iterable over several sets of batches, one after the other."""

    each: tuple[Batches, ...]

    def __len__(self) -> int:
        return sum(map(len, self.each))

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return itertools.chain.from_iterable(self.each)


@dataclass(frozen=True)
class WithoutPadding:
    """Batches of (inputs, target) in which classes at padded positions count in nothing."""

    batches: Iterable[tuple[Any, Any]]

    def __len__(self) -> int:
        return len(self.batches) if isinstance(self.batches, Sized) else 0

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for inputs, target in self.batches:
            yield inputs, counted_targets(target, counted_of(inputs), IGNORED)


@dataclass(frozen=True)
class WithoutTargets:
    """Batches of (inputs, target) as the inputs alone; its length is 0 where that is not known."""

    batches: Iterable[tuple[Any, Any]]

    def __len__(self) -> int:
        return len(self.batches) if isinstance(self.batches, Sized) else 0

    def __iter__(self) -> Iterator[Any]:
        return (inputs for inputs, _ in self.batches)
