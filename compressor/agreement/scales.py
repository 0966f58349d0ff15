"""Compute the scale on which an element of an output is compared: what varies where it stands.

An output mixes things: pixels beside probabilities, logits beside the -1e9 of illegal moves. So a
scale belongs to a place: to each position of each dimension (a channel, a token), over all other
dimensions and over the samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

ENOUGH = 16
"""This many values of one case are enough for a scale; with fewer, all cases are taken together."""

FEW = 5
"""Fewer distinct values may be close by chance: then their size tells the scale, too."""

SIZE_SHARE = 0.1
"""The share of its values' size that counts as the scale of a place with few values."""

TAIL = 10.0
"""An element far from the others is measured by its distance from them, up to this many spreads."""

MOST_VALUES = 1 << 22
"""At most this many values are sorted per dimension; of more, a random part stands for all."""

Matrices = list[Tensor]
"""Values [positions, values]: one matrix shared by all cases, or one per case."""


def scales(cases: Sequence[Tensor]) -> list[Tensor]:
    """Compute the scale of each element from how much varies at its places.

    A place's scale is the length of the shortest interval that holds a quarter of its distinct
    finite values (a few more where they are few). Three quarters may thus be far off, and a
    constant counts once, however often it stands there. It follows any affine recoding of a
    channel. An element's scale is the smallest of its places' ones.

    Args:
        cases: The same output for different inputs, float64, of the same number of dimensions.

    Returns:
        Scales of the cases' shapes; 0 where nothing varies.
    """
    all_scales = [torch.full_like(case, torch.inf) for case in cases]
    for dim in dimensions(cases):
        spans = [_tightest(matrix) for matrix in matrices(cases, dim)]
        for i, (case, scale) in enumerate(zip(cases, all_scales, strict=True)):
            low, high = (_along(x, dim, case.dim()) for x in spans[min(i, len(spans) - 1)])
            spread = high - low
            distance = (case - (low + high) / 2).abs().nan_to_num(0, 0, 0)
            torch.minimum(scale, distance.maximum(spread).minimum(TAIL * spread), out=scale)
    return all_scales


def smallest(cases: Sequence[Tensor], of: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Return, for each element, the smallest number that `of` finds at the element's places.

    Args:
        cases: The same output for different inputs.
        of: Computes one number per position, [positions, values] -> [positions].
    """
    minima = [torch.full_like(case, torch.inf) for case in cases]
    for dim in dimensions(cases):
        numbers = [of(matrix) for matrix in matrices(cases, dim)]
        for i, (case, least) in enumerate(zip(cases, minima, strict=True)):
            at = _along(numbers[min(i, len(numbers) - 1)], dim, case.dim())
            torch.minimum(least, at.expand_as(least), out=least)
    return minima


def dimensions(cases: Sequence[Tensor]) -> list[int]:
    """Return the dimensions whose positions have enough values for a scale, or all if none has."""
    every = list(range(cases[0].dim()))
    enough = [d for d in every if all(m.shape[1] >= FEW for m in matrices(cases, d))]
    return enough or every


def matrices(cases: Sequence[Tensor], dim: int) -> Matrices:
    """Return the values at each position of a dimension, as matrices [positions, values].

    There is one matrix per case where a case has enough values, or where positions are samples
    whose number differs; otherwise one matrix of all cases together.
    """
    rows = [case.movedim(dim, 0).flatten(1) if case.dim() > 1 else case[:, None] for case in cases]
    is_enough = all(row.shape[1] >= ENOUGH for row in rows)
    if is_enough or len({len(row) for row in rows}) > 1:
        return rows
    return [torch.cat(rows, dim=1)]


def _along(vector: Tensor, dim: int, dims: int) -> Tensor:
    return vector.view([-1 if d == dim else 1 for d in range(dims)])


def _tightest(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the ends of the shortest interval with a quarter of each row's distinct finite values.

    Both ends are [rows].
    """
    values = _distinct(_part_of(rows))
    width = values.shape[1]
    count = values.isfinite().sum(1, keepdim=True)
    within = torch.minimum(count // 4 + 3, count - 1).clamp(min=2).minimum(count).clamp(min=1)
    last = torch.arange(width)[None] + within - 1
    ends = values.gather(1, last.clamp(max=width - 1))
    lengths = torch.where(last < count, ends - values, torch.inf)
    best = lengths.argmin(1, keepdim=True)
    low, high = values.gather(1, best), ends.gather(1, best)
    none = count == 0
    low, high = low.masked_fill(none, 0), high.masked_fill(none, 0)
    size = SIZE_SHARE * torch.maximum(low.abs(), high.abs())
    more = torch.where(count < FEW, (size - (high - low)).clamp(min=0) / 2, 0)
    return (low - more)[:, 0], (high + more)[:, 0]


def _part_of(rows: Tensor) -> Tensor:
    most = max(64, MOST_VALUES // max(1, len(rows)))
    if rows.shape[1] <= most:
        return rows
    generator = torch.Generator().manual_seed(0)
    return rows[:, torch.randint(rows.shape[1], (most,), generator=generator)]


def _distinct(rows: Tensor) -> Tensor:
    """Return each row's distinct finite values in ascending order, filled up with infinities."""
    ordered = torch.where(rows.isfinite(), rows, torch.inf).sort(1).values
    again = torch.zeros_like(ordered, dtype=torch.bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    return ordered.masked_fill(again, torch.inf).sort(1).values
