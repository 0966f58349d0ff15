"""Carry small tensors of a graph as numbers: sizes, axes and scalars, some of them symbolic.

Shape -> Gather -> Concat -> Reshape is arithmetic on these, never on tensors, so that a size which
is free stays free when the network is captured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

MOST = 4096
"""The most elements that are carried as numbers; larger tensors are tensors."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Numbers:
    """A tensor as numbers.

    Attributes:
        array: Its elements, as Python's numbers or torch's symbolic ones (an array of objects).
        dtype: The type of the tensor that it stands for.
    """

    array: Array
    dtype: torch.dtype

    @property
    def listed(self) -> list[Any]:
        """Return the elements in row-major order."""
        return list(self.array.reshape(-1))

    @property
    def is_plain(self) -> bool:
        """Return whether every element is a number of Python's."""
        return all(isinstance(value, int | float) for value in self.listed)

    def tensor(self, device: torch.device | None = None) -> Tensor:
        """Return the tensor; symbolic elements stay symbolic."""
        if self.is_plain:
            return torch.tensor(self.array.tolist(), dtype=self.dtype, device=device)
        parts = [torch.scalar_tensor(v, dtype=self.dtype, device=device) for v in self.listed]
        return torch.stack(parts).reshape(self.array.shape)


def numbers(values: Any, dtype: torch.dtype = torch.int64) -> Numbers:
    """Make numbers of a list, an array or a scalar; floats are rounded to their type."""
    array = values if isinstance(values, np.ndarray) else _array(values)
    if dtype.is_floating_point or dtype == torch.bool:
        convert = _single if dtype.is_floating_point else _flag
        array = _each(convert, array)
    elif array.dtype != object:
        array = _array(array.tolist())
    return Numbers(array if array.dtype == object else array.astype(object), dtype)


def of_one(value: Any) -> Array:
    """Return an array of objects without dimensions, which holds one value."""
    array = np.empty((), object)
    array[()] = value
    return array


def _array(values: Any) -> Array:
    """Return an array of objects; an element is never asked for its own sequence."""
    if not isinstance(values, list | tuple):
        return of_one(values)
    parts = [_array(value) for value in values]
    array = np.empty((len(parts), *(parts[0].shape if parts else ())), object)
    for i, part in enumerate(parts):
        array[i] = part[()] if part.shape == () else part
    return array


def _each(convert: Callable[[Any], Any], array: Array) -> Array:
    converted = np.empty(array.shape, object)
    converted.reshape(-1)[:] = [convert(value) for value in array.reshape(-1)]
    return converted


def each(convert: Callable[..., Any], *operands: Array) -> Array:
    """Apply a function of Python's to every element of arrays that are broadcast."""
    spread = np.broadcast_arrays(*operands)
    results = np.empty(spread[0].shape, object)
    flat = [part.reshape(-1) for part in spread]
    results.reshape(-1)[:] = [convert(*values) for values in zip(*flat, strict=True)]
    return results


def _single(value: Any) -> Any:
    return float(np.float32(value)) if isinstance(value, int | float | np.generic) else value


def _flag(value: Any) -> Any:
    return bool(value) if isinstance(value, int | float | np.generic) else value


def all_numbers(values: Iterable[Any]) -> bool:
    """Return whether all of the values that are there are numbers."""
    return all(isinstance(value, Numbers) for value in values if value is not None)
