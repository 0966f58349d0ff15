"""Draw other values of a given tensor's kind: values that a network accepts if it accepted those.

A network may begin with a logarithm, look integers up in tables, divide by the length of a mask. So
nothing is drawn that the given values do not bear out: ranges, signs, integers, one-hot rows,
masks, order and symmetry stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

Draw = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Kind:
    """A kind of values that a tensor may hold, and how to draw others of that kind.

    Attributes:
        name: The kind in words.
        fits: Returns whether given values are of the kind.
        another: Draws other values near the given ones, each legal at its place.
        fresh: Draws values that keep nothing of the given ones but the kind and the range; where it
            is None, `another` is used.
    """

    name: str
    fits: Callable[[Tensor], bool]
    another: Draw
    fresh: Draw | None = None


def another(given: Tensor, generator: torch.Generator) -> Tensor:
    """Draw other values of the given tensor's kind, near the given ones; constants stay."""
    return _draw(given, generator, lambda kind: kind.another)


def fresh(given: Tensor, generator: torch.Generator) -> Tensor:
    """Draw values of the given tensor's kind and range that tell nothing else of the given ones."""
    return _draw(given, generator, lambda kind: kind.fresh or kind.another)


def kind_of(given: Tensor) -> Kind:
    """Return the first kind of the table that the values of a non-empty tensor fit."""
    values = _plain(given)
    return next(kind for kind in KINDS if kind.fits(values))


def fill(given: Tensor, generator: torch.Generator) -> Tensor:
    """Draw values for a tensor that is constant because its user only cared for its shape.

    Integers go from 0 to the given one (at least to 1); other numbers go from the given one to a
    tenth above it.
    """
    if not given.is_floating_point() and not given.is_complex():
        largest = 1 if given.dtype == torch.bool else max(1, int(given.max()))
        return torch.randint(0, largest + 1, given.shape, generator=generator).to(given.dtype)
    more = 0.1 * torch.rand(given.shape, generator=generator).to(given.dtype)
    return given + more * given.abs().clamp(min=1)


def _draw(given: Tensor, generator: torch.Generator, which: Callable[[Kind], Draw]) -> Tensor:
    if not given.dim() or not given.numel():
        return given
    if given.is_complex():
        share = _uniform(given.shape, generator).to(given.real.dtype)
        return given.detach().cpu() * share
    draw = which(kind_of(given))
    return draw(_plain(given), generator).to(given.dtype).contiguous()


def _plain(given: Tensor) -> Tensor:
    """Return the tensor in float64 on the CPU, so that one arithmetic serves all types."""
    return given.detach().cpu().double()


def _uniform(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    return torch.rand(tuple(shape), generator=generator, dtype=torch.float64)


def _as_it_is(given: Tensor, _: torch.Generator) -> Tensor:
    return given


# -- structure -----------------------------------------------------------------------------------


def _two_values(given: Tensor) -> Tensor | None:
    """Return where the larger value stands if there are exactly two, else None."""
    low, high = given.min(), given.max()
    is_high = given == high
    return is_high if bool((low < high) & (is_high | (given == low)).all()) else None


def _is_mask(given: Tensor) -> bool:
    return _two_values(given) is not None


def _one_hot_dim(given: Tensor) -> int | None:
    """Return the last dimension along which exactly one value is the larger of two, or None."""
    high = _two_values(given)
    for dim in reversed(range(given.dim())):
        if high is not None and given.shape[dim] > 2 and bool((high.sum(dim) == 1).all()):
            return dim
    return None


def _ordered_dim(given: Tensor) -> int | None:
    """Return the last dimension, but not the samples', along which values rise or fall; or None."""
    for dim in reversed(range(min(1, given.dim() - 1), given.dim())):
        size = given.shape[dim]
        first, then = given.narrow(dim, 0, size - 1), given.narrow(dim, 1, size - 1)
        if size > 2 and bool((first <= then).all() | (first >= then).all()):
            return dim
    return None


def _is_symmetric(given: Tensor) -> bool:
    is_square = given.dim() > 1 and given.shape[-1] == given.shape[-2] > 1
    return is_square and torch.equal(given, given.mT)


def _is_normalised(given: Tensor) -> bool:
    """Return whether the rows are shares that sum to one, or vectors of length one."""
    if given.dim() < 2 or given.shape[-1] < 2:
        return False
    one = torch.ones(given.shape[:-1], dtype=given.dtype)
    is_share = bool((given >= 0).all()) and torch.allclose(given.sum(-1), one, atol=1e-3)
    return is_share or torch.allclose(given.norm(dim=-1), one, atol=1e-3)


def _is_whole(given: Tensor) -> bool:
    return bool((given == given.round()).all())


# -- draws ---------------------------------------------------------------------------------------


def _rows_shuffled(given: Tensor, generator: torch.Generator) -> Tensor:
    """Put the samples (dimension 0) in another order."""
    return given[torch.randperm(len(given), generator=generator)]


def _shuffle_along(dim: int, given: Tensor, generator: torch.Generator) -> Tensor:
    """Shuffle each line along a dimension in an order of its own."""
    return given.gather(dim, _uniform(given.shape, generator).argsort(dim))


def _within_rows(given: Tensor, generator: torch.Generator) -> Tensor:
    return _shuffle_along(given.dim() - 1, given, generator)


def _one_hot(given: Tensor, generator: torch.Generator) -> Tensor:
    dim = _one_hot_dim(given)
    assert dim is not None
    return _shuffle_along(dim, given, generator)


def _nodes_shuffled(given: Tensor, generator: torch.Generator) -> Tensor:
    order = torch.randperm(given.shape[-1], generator=generator)
    return given[..., order, :][..., order]


def _nearer_zero(given: Tensor, generator: torch.Generator) -> Tensor:
    """Move each value nearer to zero, or to what of the range is nearest to zero.

    Its sign and the scale of its column stay, and nothing leaves the range.
    """
    return _nearer(given, _uniform(given.shape, generator))


def _nearer(given: Tensor, share: Tensor) -> Tensor:
    least = torch.zeros((), dtype=given.dtype).clamp(given.min(), given.max())
    return least + (given - least) * share


def _in_order(given: Tensor, generator: torch.Generator) -> Tensor:
    """Move whole lines nearer to zero, so that their order stays; shuffle integers by sample."""
    if _is_whole(given):
        return _rows_shuffled(given, generator)
    dim = _ordered_dim(given)
    shape = [1 if d == dim else size for d, size in enumerate(given.shape)]
    return _nearer(given, _uniform(shape, generator))


def _symmetric(given: Tensor, generator: torch.Generator) -> Tensor:
    share = _uniform(given.shape, generator)
    return _nearer(given, (share + share.mT) / 2)


def _up_to_the_largest_here(given: Tensor, generator: torch.Generator) -> Tensor:
    """Draw integers from the given ones, none above the largest at its place (over the samples).

    What a place looks up may be a table of its own, with that many rows.
    """
    most = given.amax(0, keepdim=True).expand_as(given)
    values: Tensor = torch.unique(given)
    count = torch.searchsorted(values, most.contiguous(), right=True)
    places = (_uniform(given.shape, generator) * count).long()
    return values.take(places)


def _whole_in_range(given: Tensor, generator: torch.Generator) -> Tensor:
    low, high = given.min(), given.max()
    return low + (_uniform(given.shape, generator) * (high - low + 1)).floor()


def _normal_in_range(given: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(given.shape, generator=generator, dtype=torch.float64)
    spread, middle = given.std(correction=0), given.mean()
    return (middle + noise * spread).clamp(given.min(), given.max())


def _sort_in_range(given: Tensor, generator: torch.Generator) -> Tensor:
    dim = _ordered_dim(given)
    assert dim is not None
    falls = bool((given.diff(dim=dim) < 0).any())
    draw = _whole_in_range if _is_whole(given) else _normal_in_range
    return draw(given, generator).sort(dim, descending=falls).values


def _shares(given: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(given.shape, generator=generator, dtype=torch.float64)
    return noise.softmax(-1) if bool((given >= 0).all()) else noise / noise.norm(dim=-1)[..., None]


def _symmetric_in_range(given: Tensor, generator: torch.Generator) -> Tensor:
    drawn = _normal_in_range(given, generator).triu()
    return drawn + drawn.triu(1).mT


def _finite_part(draw: Draw, given: Tensor, generator: torch.Generator) -> Tensor:
    """Draw the finite values only; infinities and NaN stay where they are."""
    drawn, finite = given.clone(), given.isfinite()
    if finite.any():
        drawn[finite] = draw(given[finite], generator)
    return drawn


KINDS = (
    Kind("constant", lambda given: not bool((given != given.flatten()[0]).any()), _as_it_is),
    Kind("one-hot", lambda given: _one_hot_dim(given) is not None, _one_hot),
    Kind(
        "a mask in order",
        lambda given: _is_mask(given) and _ordered_dim(given) is not None,
        _rows_shuffled,
    ),
    Kind(
        "a symmetric mask",
        lambda given: _is_mask(given) and _is_symmetric(given),
        _nodes_shuffled,
    ),
    Kind("a mask", _is_mask, _within_rows),
    Kind(
        "not finite in places",
        lambda given: not bool(given.isfinite().all()),
        partial(_finite_part, _nearer_zero),
        partial(_finite_part, _normal_in_range),
    ),
    Kind("in order", lambda given: _ordered_dim(given) is not None, _in_order, _sort_in_range),
    Kind(
        "an integer per sample",
        lambda given: _is_whole(given) and given.dim() == 1,
        _rows_shuffled,
        _whole_in_range,
    ),
    Kind("integers", _is_whole, _up_to_the_largest_here, _whole_in_range),
    Kind("shares or directions", _is_normalised, _within_rows, _shares),
    Kind("symmetric", _is_symmetric, _symmetric, _symmetric_in_range),
    Kind("numbers", lambda given: True, _nearer_zero, _normal_in_range),
)
"""All kinds, from the most special to the most general; the first that fits is taken."""
