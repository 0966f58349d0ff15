"""Calibration data as the inputs of a traced program."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from compressor.data import Data, batches
from compressor.options import Options
from compressor.records import ExampleInputs, Trace


class Calibration:
    """The program's inputs, batch by batch; every call gives the same ones anew.

    A program whose batch is fixed gets batches of that size alone.
    """

    def __init__(self, trace: Trace, train: Data, options: Options) -> None:
        self.train, self.seed = train, options.seed
        self.is_free = trace.batch_symbol is not None
        self.size = options.batch_size if self.is_free else trace.batch
        whole = min(options.calibration, len(train))
        self.samples = whole if self.is_free else whole // self.size * self.size

    @staticmethod
    def fits(examples: ExampleInputs, train: Data) -> bool:
        """Whether the data's inputs are all that the program takes."""
        return not examples.kwargs and len(train.first_sample) == len(examples.args)

    def __call__(self) -> _Inputs:
        some = batches(self.train, self.size, seed=self.seed, limit=self.samples)
        return _Inputs(some)


class _Inputs:
    """Batches without their targets."""

    def __init__(self, batches: Any) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return (inputs for inputs, _ in self.batches)
