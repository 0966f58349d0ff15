"""Keep the rows of a regression as they come, where they are fewer than its features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from compressor.least_squares.memory import COLUMNS
from compressor.least_squares.moments import halves_of, is_enough, shrinkage_of, square_norm


@dataclass
class Rows:
    """The rows of a regression's features and targets, in the precision that they come in.

    Attributes:
        features, targets: The rows, batch by batch, [blocks, rows, …].
        halves: Where the halves of some rows are, which are compared to estimate the shrinkage.
        count: Number of rows.
        begin: The first row of those that are in no half.
    """

    features: list[Tensor] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)
    halves: list[slice] = field(default_factory=list)
    count: int = 0
    begin: int = 0

    def add(self, features: Tensor, targets: Tensor) -> None:
        """Add features [blocks, rows, features] and targets [blocks, rows, outputs]."""
        self.features.append(features.cpu())
        self.targets.append(targets.cpu())
        self.count += features.shape[1]
        if is_enough(self.count - self.begin, features.shape[2]):
            self._halve()

    def over_processes(self) -> Rows:
        """Return the rows themselves: several processes gather moments."""
        return self

    def wanted(self) -> Tensor:
        """Return the targets in double precision, [blocks, rows, outputs]."""
        return torch.cat(self.targets, 1).double()

    def variance(self) -> Tensor:
        """Return the variance of the targets, [blocks, outputs]."""
        return self.wanted().var(1, correction=0)

    def settle(self, *, centred: bool) -> tuple[Tensor, Tensor]:
        """Return rows U, [blocks, rows, features], of the covariance UᵀU, and its shrinkage.

        They are what `Moments.settle` returns; the rows are used up for it.
        """
        _, shrinkage = self.products(centred=centred)
        rows = torch.cat(self.features, 1).double()
        self.features.clear()
        if centred:
            rows -= rows.mean(1, keepdim=True)
        return rows.div_(self.count**0.5), shrinkage

    def products(self, *, centred: bool) -> tuple[Tensor, Tensor]:
        """Return the rows' products, [blocks, rows, rows], centred or not, and the shrinkage.

        The shrinkage is that of the moments, since the squared norms of UᵀU and of UUᵀ are the
        same.
        """
        self._halve()
        blocks, _, width = self.features[0].shape
        products = torch.zeros(blocks, self.count, self.count, dtype=torch.float64)
        for some in self.columns():
            products.baddbmm_(some, some.transpose(1, 2))
        square = square_norm(products) / self.count**2
        norms = sum(
            square_norm(products[:, half, half]) / (half.stop - half.start) ** 2
            for half in self.halves
        )
        if centred:
            sides = products.mean(2, keepdim=True)
            whole = sides.mean(1, keepdim=True)
            products.sub_(sides).sub_(sides.transpose(1, 2)).add_(whole)
        mean = products.diagonal(dim1=1, dim2=2).sum(1) / (self.count * width)
        spread = square_norm(products) / self.count**2 - width * mean.square()
        return products, shrinkage_of(norms / len(self.halves), len(self.halves), square, spread)

    def columns(self) -> Iterator[Tensor]:
        """Yield some features of all rows, then the next ones, in double precision."""
        for first in range(0, self.features[0].shape[2], COLUMNS):
            some = [rows[:, :, first : first + COLUMNS] for rows in self.features]
            yield torch.cat(some, 1).double()

    def _halve(self) -> None:
        """Make two halves of the rows that came since it was done last."""
        for half in halves_of(self.count - self.begin):
            self.halves.append(slice(self.begin + half.start, self.begin + half.stop))
        self.begin = self.count
