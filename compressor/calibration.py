"""Calibration data as a traced program takes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Any

from compressor.data import Batches, Data, batches
from compressor.options import ScoringOptions
from compressor.records import ExampleInputs, Trace


class Calibration:
    """Some of the training data; a program whose batch is fixed gets batches of that size alone."""

    def __init__(self, trace: Trace, train: Data, options: ScoringOptions) -> None:
        self.train, self.seed = train, options.seed
        self.is_static = trace.batch_symbol is None
        self.size = trace.batch if self.is_static else options.batch_size
        self.limit = max(self.size, options.calibration) if self.is_static else options.calibration

    @staticmethod
    def fits(examples: ExampleInputs, train: Data) -> bool:
        """Whether the data's inputs are all that the program takes."""
        return not examples.kwargs and len(train.first_sample) == len(examples.args)

    @property
    def samples(self) -> int:
        """How many are run; none where a fixed batch is larger than the data."""
        count = min(self.limit, len(self.train))
        return count // self.size * self.size if self.is_static else count

    def batches(self) -> Batches:
        """The same ones at every call; passes over them differ."""
        return batches(
            self.train, self.size, seed=self.seed, limit=self.limit, drop_last=self.is_static
        )


@dataclass(frozen=True)
class WithoutTargets:
    """Batches of (inputs, target) as the inputs alone; 0 long where the number is not known."""

    batches: Iterable[tuple[Any, Any]]

    def __len__(self) -> int:
        return len(self.batches) if isinstance(self.batches, Sized) else 0

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return (inputs for inputs, _ in self.batches)
