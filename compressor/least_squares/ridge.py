"""Solve ridge regressions in two forms that give the same step.

A regression of n rows u of F features is solved with the F×F second moments Σ uuᵀ, or with the
n×n products of its rows with each other, from which the same step follows:
(UᵀU + λI)⁻¹UᵀT = Uᵀ(UUᵀ + λI)⁻¹T (the dual form, Saunders et al. 1998). The first suits few
features, the second few rows: a linear layer after a flattened image has tens of thousands of
features and one row per sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from compressor.least_squares.consumers import Step
from compressor.least_squares.inverses import factor
from compressor.least_squares.memory import (
    Memory,
    Size,
    bytes_to_solve_moments,
    bytes_to_solve_rows,
)
from compressor.least_squares.moments import Moments
from compressor.least_squares.rows import Rows
from compressor.processes import processes

RIDGE, OF_SHRINKAGE = 3e-3, 0.1
"""The re-fitted weights are pulled towards what they were. The pull is the larger of two:
`RIDGE` times the features' mean energy, and `OF_SHRINKAGE` times the shrinkage of
`Moments.settle`."""


class Gathering(Protocol):
    """What gathers a regression's rows batch by batch and then solves it.

    Features are [blocks, rows, features], targets [blocks, rows, outputs].
    """

    def add(self, features: Tensor, targets: Tensor) -> None: ...

    def step(self, *, centred: bool, ridge: float | None) -> Step | None:
        """Solve for the step; return None where nothing was added.

        Args:
            centred: Whether a constant takes care of the means.
            ridge: Replaces what `RIDGE` and `OF_SHRINKAGE` say.
        """


def _share(shrinkage: Tensor, ridge: float | None) -> Tensor | float:
    return (OF_SHRINKAGE * shrinkage).clamp(min=RIDGE) if ridge is None else ridge


# -- by moments of the features --------------------------------------------------------------------


class ByMoments:
    """Solves with the second moments of the features; only the solver copies a matrix of them."""

    def __init__(self) -> None:
        self.moments = Moments()

    def add(self, features: Tensor, targets: Tensor) -> None:
        self.moments.add(features, targets)

    def step(self, *, centred: bool, ridge: float | None) -> Step | None:
        moments = self.moments.over_processes()
        if not moments.count:
            return None
        features, targets = moments.means()
        before = moments.parts["squares"].sum() / moments.count
        cross = moments.cross(centred=centred)
        covariance, shrinkage = moments.settle(centred=centred)
        diagonal = covariance.diagonal(dim1=1, dim2=2)
        mean = diagonal.sum(1) / max(1, diagonal.shape[1])
        damping = _share(shrinkage, ridge) * mean + 1e-30
        diagonal += damping.unsqueeze(1)
        weight = torch.cholesky_solve(cross, factor(covariance))
        pull = (damping * weight.square().sum((1, 2))).sum()
        whole = moments.variance().sum() if centred else before
        constant = targets - (features.unsqueeze(1) @ weight).squeeze(1)
        return Step(weight, constant, float(before), float(whole - (weight * cross).sum() - pull))


# -- by products of the rows -----------------------------------------------------------------------


class ByRows:
    """Keeps the rows as they come, and solves with their products with each other."""

    def __init__(self) -> None:
        self.rows = Rows()

    def add(self, features: Tensor, targets: Tensor) -> None:
        self.rows.add(features, targets)

    def step(self, *, centred: bool, ridge: float | None) -> Step | None:
        count = self.rows.count
        if not count:
            return None
        targets = self.rows.wanted()
        before = targets.square().sum() / count
        means = targets.mean(1)
        products, shrinkage = self.rows.products(centred=centred)
        if centred:
            targets -= means.unsqueeze(1)
        width = self.rows.features[0].shape[2]
        diagonal = products.diagonal(dim1=1, dim2=2)
        damping = _share(shrinkage, ridge) * diagonal.sum(1) / (count * width) + 1e-30
        added = (count * damping).reshape(-1, 1, 1)
        diagonal += added.squeeze(2)
        shares = torch.cholesky_solve(targets, factor(products))
        fitted = targets - added * shares
        pull = (damping * (shares * fitted).sum((1, 2))).sum()
        after = (targets.square().sum() - (fitted * targets).sum()) / count - pull
        weight, constant = self._weight(shares, means, centred=centred)
        return Step(weight, constant, float(before), float(after))

    def _weight(self, shares: Tensor, means: Tensor, *, centred: bool) -> tuple[Tensor, Tensor]:
        """Return the rows' sum weighted by their shares, and what is left of the means.

        The sum is in the rows' own precision: of many features it is large.
        """
        rows = self.rows.features[0]
        blocks, _, width = rows.shape
        weight = shares.new_empty(blocks, width, shares.shape[2], dtype=rows.dtype)
        first = 0
        for some in self.rows.columns():
            own = slice(first, first + some.shape[2])
            middle = some.mean(1, keepdim=True)
            if centred:
                some -= middle
            exact = some.transpose(1, 2) @ shares
            means = means - (middle @ exact).squeeze(1)
            weight[:, own] = exact
            first = own.stop
        return weight, means


# -- which of them ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """A way to solve a regression.

    Attributes:
        gather: Makes what gathers for it.
        bytes: (size, rows) -> the bytes that it takes.
        work: (size, rows) -> its multiply-adds.
    """

    gather: Callable[[], Gathering]
    bytes: Callable[[Size, int], int]
    work: Callable[[Size, int], int]


BY_MOMENTS = Form(
    ByMoments,
    lambda size, rows: bytes_to_solve_moments(size),
    lambda size, rows: size.blocks * size.features**2 * (rows + size.features),
)
BY_ROWS = Form(
    ByRows,
    bytes_to_solve_rows,
    lambda size, rows: size.blocks * rows**2 * (size.features + rows),
)


def form_for(size: Size, rows: int | None, memory: Memory) -> Form:
    """Return the form with the least work of those that fit into the memory.

    Moments, which can be taken in parts, are returned where none fits, where the number of rows is
    not known beforehand, and where the rows are spread over several processes.
    """
    if rows is None or processes() > 1:
        return BY_MOMENTS
    fitting = [f for f in (BY_MOMENTS, BY_ROWS) if f.bytes(size, rows) <= memory.moments]
    return min(fitting, key=lambda form: form.work(size, rows), default=BY_MOMENTS)
