"""Look at large tensors in double precision, some of their values at a time."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

ENTRIES = 2**22
"""The number of values that are looked at together."""


def pieces_of(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield the same values of some tensors of one shape, [samples, values], in double precision.

    All samples of some values come at a time, the samples being the first dimension.
    """
    flat = [tensor.reshape(len(tensor) if tensor.ndim else 1, -1) for tensor in tensors]
    samples, columns = flat[0].shape
    at_once = max(1, ENTRIES // max(1, samples))
    for start in range(0, columns, at_once):
        yield tuple(each[:, start : start + at_once].double() for each in flat)
