"""Hold the inverse of a regression's second moments while its features are dropped one by one.

Of the inverse, elimination needs the columns of the features that go next. Dropping the features J
leaves A⁻¹ - L Lᵀ with L = (A⁻¹)_:J C⁻ᵀ and C Cᵀ = (A⁻¹)_JJ. The two forms are those of a re-fit
(`ridge`): by the second moments themselves, or, where there are few rows, by the rows.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

PENDING = 256
"""The number of dropped features whose L is kept before it is subtracted: products of so many
columns run many times as fast as those of a few."""


TINY = 1e-300
"""What is taken of a number that should be positive, and is none by rounding."""


class Inverse(Protocol):
    """An inverse A⁻¹ of [blocks, features, features], of which features are dropped."""

    def blocks(self, places: Tensor) -> Tensor:
        """Return the parts of some channels' features [channels, k]: [blocks, channels, k, k].

        It is asked for before anything is dropped.
        """

    def columns(self, out: Tensor) -> Tensor:
        """Return the columns of some features, [blocks, features, out]."""

    def drop(self, out: Tensor, change: Tensor) -> None:
        """Subtract the product of a change L, [blocks, features, out], with itself, in place."""

    def compact(self, stay: Tensor) -> None:
        """Forget all features but those that stay, in place."""


class OfMoments:
    """The inverse of second moments, held as a matrix."""

    def __init__(self, moments: Tensor, damping: Tensor) -> None:
        """Invert moments [blocks, features, features] with λ, [blocks], on the diagonal."""
        diagonal = moments.diagonal(dim1=1, dim2=2)
        before = diagonal.clone()
        diagonal += damping.unsqueeze(1)
        self.inverse = _invert(moments)
        diagonal.copy_(before)
        count, width, _ = moments.shape
        self.pending = moments.new_empty(count, width, min(PENDING, width))
        self.waiting = 0

    def blocks(self, places: Tensor) -> Tensor:
        return self.inverse[:, places[:, :, None], places[:, None, :]]

    def columns(self, out: Tensor) -> Tensor:
        columns = self.inverse[:, out].transpose(1, 2)  # it is symmetric, and rows lie together
        change = self.pending[:, :, : self.waiting]
        return torch.baddbmm(columns, change, change[:, out].transpose(1, 2), alpha=-1)

    def drop(self, out: Tensor, change: Tensor) -> None:
        width = change.shape[2]
        if self.waiting + width > self.pending.shape[2]:
            self._settle()
        if width > self.pending.shape[2]:
            self.inverse.baddbmm_(change, change.transpose(1, 2), alpha=-1)
            return
        self.pending[:, :, self.waiting : self.waiting + width] = change
        self.waiting += width

    def compact(self, stay: Tensor) -> None:
        self._settle()
        self.inverse = self.inverse[:, stay][:, :, stay]
        self.pending = self.pending[:, : len(stay)]

    def _settle(self) -> None:
        change = self.pending[:, :, : self.waiting]
        self.inverse.baddbmm_(change, change.transpose(1, 2), alpha=-1)
        self.waiting = 0


class OfRows:
    """The inverse of UᵀU + λI from the rows U: (I - Uᵀ K⁻¹ U) / λ with K = UUᵀ + λI."""

    def __init__(self, rows: Tensor, damping: Tensor) -> None:
        """Prepare for rows [blocks, rows, features] and λ, [blocks]."""
        self.rows, self.damping = rows, damping.reshape(-1, 1, 1)
        products = rows @ rows.transpose(1, 2)
        products.diagonal(dim1=1, dim2=2).add_(damping.unsqueeze(1))
        self.inverse = _invert(products)

    def blocks(self, places: Tensor) -> Tensor:
        some = self.rows[:, :, places]
        solved = (self.inverse @ self.rows)[:, :, places]
        unit = torch.eye(places.shape[1], dtype=some.dtype)
        return (unit - torch.einsum("bnci,bncj->bcij", some, solved)) / self.damping.unsqueeze(3)

    def columns(self, out: Tensor) -> Tensor:
        columns = self.rows.transpose(1, 2) @ (self.inverse @ self.rows[:, :, out])
        columns[:, out, torch.arange(len(out))] -= 1
        return columns.neg_().div_(self.damping)

    def drop(self, out: Tensor, change: Tensor) -> None:
        # L_J is the triangular root C of (A⁻¹)_JJ, and K loses U_J U_Jᵀ
        solved = (self.inverse @ self.rows[:, :, out]).transpose(1, 2)
        part = solve(change[:, out], solved)
        self.inverse += (part.transpose(1, 2) @ part) / self.damping

    def compact(self, stay: Tensor) -> None:
        self.rows = self.rows[:, :, stay]


def _invert(matrices: Tensor) -> Tensor:
    inverse = factor(matrices)
    torch.cholesky_inverse(inverse, out=inverse)  # no third matrix is held
    return inverse


def factor(matrices: Tensor) -> Tensor:
    """Return the triangular root of symmetric matrices that are positive but for rounding.

    Args:
        matrices: [..., n, n]; what rounding made negative is made up for on their diagonal.
    """
    if matrices.shape[-1] == 1:
        return matrices.clamp(min=TINY).sqrt()
    root: Tensor
    root, failed = torch.linalg.cholesky_ex(matrices)
    share = 1e-14
    while bool(failed.any()) and share < 1:
        raised = matrices.clone()
        diagonal = raised.diagonal(dim1=-2, dim2=-1)
        diagonal += share * diagonal.abs().mean(-1, keepdim=True)
        root, failed = torch.linalg.cholesky_ex(raised)
        share *= 100
    return root


def solve(root: Tensor, right: Tensor) -> Tensor:
    """Return root⁻¹ right for triangular roots [..., n, n] and right sides [..., n, m]."""
    if root.shape[-1] == 1:
        return right / root
    solved: Tensor = torch.linalg.solve_triangular(root, right, upper=False)
    return solved
