"""Write a tensor's dimensions as expressions over axes, and read such expressions.

A dimension is an axis, a row-major product of dimensions, or a sum (concatenation) of dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Axis:
    """An independent set of indices 0..size-1; an axis is equal to no other object than itself."""

    size: int


@dataclass(frozen=True, eq=False)
class Product:
    """A row-major product of dimensions: position = (index in the first) * (size of the rest) +
    …"""

    parts: tuple[Dim, ...]

    @cached_property
    def size(self) -> int:
        """The number of positions: the product of the parts' sizes."""
        return math.prod(part.size for part in self.parts)


@dataclass(frozen=True, eq=False)
class Sum:
    """A concatenation of dimensions: the parts' positions, one part after the other."""

    parts: tuple[Dim, ...]

    @cached_property
    def size(self) -> int:
        """The number of positions: the sum of the parts' sizes."""
        return sum(part.size for part in self.parts)


Dim = Axis | Product | Sum
Bools = npt.NDArray[np.bool_]

UNIT = Axis(1)
EMPTY = Axis(0)
ONE_LESS = Axis(-1)
"""What a sum has beside a dimension where it counts all of its positions but one. It stands only in
sizes that operators spell, never in a tensor's dimensions."""


def by_inner_size(dim: Dim) -> dict[int, tuple[Dim, Dim]]:
    """Return the ways to write a product as (outer, inner) between its parts, by inner size."""
    parts = dim.parts if isinstance(dim, Product) else (dim,)
    splits = [(Product(parts[:i]), Product(parts[i:])) for i in range(len(parts))]
    return {inner.size: (outer, inner) for outer, inner in splits}


def leaves(dim: Dim) -> Iterator[Axis]:
    """Yield the axes of an expression, in order, with repetitions."""
    if isinstance(dim, Axis):
        yield dim
    else:
        for part in dim.parts:
            yield from leaves(part)


def same(left: Dim, right: Dim) -> bool:
    """Return whether two expressions are the same, axis for axis."""
    if isinstance(left, Axis) or isinstance(right, Axis):
        return left is right
    return (
        type(left) is type(right)
        and len(left.parts) == len(right.parts)
        and all(map(same, left.parts, right.parts))
    )


def repeated_in_product(dim: Dim) -> Iterator[Axis]:
    """Yield the axes that stand more than once in one product.

    No index of such an axis has positions of its own.
    """
    if isinstance(dim, Axis):
        return
    if isinstance(dim, Product):
        per_part = [set(leaves(part)) for part in dim.parts]
        for axis in set().union(*per_part):
            if sum(axis in axes for axes in per_part) > 1:
                yield axis
    for part in dim.parts:
        yield from repeated_in_product(part)


def keep_mask(dim: Dim, keep: Mapping[Axis, Bools]) -> Bools:
    """Return which positions of `dim` stay, [size] bool.

    Args:
        dim: A dimension in normal form.
        keep: Which indices of an axis stay, [axis.size] bool; an axis that is missing loses
            nothing.
    """
    if isinstance(dim, Axis):
        return keep[dim] if dim in keep else np.ones(dim.size, dtype=bool)
    masks = [keep_mask(part, keep) for part in dim.parts]
    if isinstance(dim, Sum):
        return np.concatenate(masks)
    mask = masks[0]
    for inner in masks[1:]:
        mask = np.logical_and.outer(mask, inner).reshape(-1)
    return mask


def coordinates(dim: Dim, axis: Axis) -> npt.NDArray[np.int64]:
    """Return the index on `axis` of each position of `dim`, [size] int; -1 where it has none."""
    if isinstance(dim, Axis):
        return np.arange(dim.size) if dim is axis else np.full(dim.size, -1)
    found = [coordinates(part, axis) for part in dim.parts]
    if isinstance(dim, Sum):
        return np.concatenate(found)
    index = found[0]
    for inner in found[1:]:
        index = np.maximum.outer(index, inner).reshape(-1)
    return index


def size_after(dim: Dim, sizes: Mapping[Axis, int]) -> int:
    """Return the size of `dim` when the axes in `sizes` have those sizes, and others their own."""
    if isinstance(dim, Axis):
        return sizes.get(dim, dim.size)
    left: Iterable[int] = (size_after(part, sizes) for part in dim.parts)
    return math.prod(left) if isinstance(dim, Product) else sum(left)
