"""Measure how much an output differs from sample to sample: the unit of its errors."""

from __future__ import annotations

import torch
from torch import Tensor

from compressor.double_precision import pieces_of
from compressor.padding import has_positions

_SAME = 1e-9
"""An output whose deviations are less than this share of its squares is the same for all samples,
up to rounding."""


class Spread:
    """Sums over the samples of an output from which its variance follows, in double precision.

    Samples of different shapes have means of their own.
    """

    def __init__(self) -> None:
        self.values = 0
        self.square = 0.0
        self.totals: dict[torch.Size, tuple[int, Tensor]] = {}

    def add(self, outputs: Tensor, counted: Tensor | None = None) -> None:
        """Add a batch's outputs, [samples, ...], to the sums.

        Where they have positions of which some are padding, each other position is a sample.
        """
        if counted is not None and has_positions(outputs, counted):
            outputs = outputs[counted.to(outputs.device)]
        shape, place = outputs.shape[1:], 0
        count, total = self.totals.get(shape, (0, None))
        if total is None:
            total = torch.zeros(shape, dtype=torch.float64, device=outputs.device)
        sums = total.view(-1)
        for (values,) in pieces_of(outputs):
            self.square += float(values.square().sum())
            sums[place : place + values.shape[1]] += values.sum(0)
            place += values.shape[1]
        self.values += outputs.numel()
        self.totals[shape] = count + len(outputs), total

    @property
    def deviation(self) -> float:
        """Return the sum of squared deviations from the mean over the samples.

        Where all samples are the same (one sample is), it is the sum of squares.
        """
        flat = ((count, total.view(-1)) for count, total in self.totals.values())
        means = (float(total @ total) / count for count, total in flat)  # without a copy of all
        squares = self.square - sum(means)
        return squares if squares > _SAME * self.square else self.square

    @property
    def variance(self) -> float:
        """Return the mean squared deviation of a value; 1 where all values are 0."""
        return self.deviation / self.values if self.deviation > 0 else 1.0
