"""Hold arrays with an entry per sample, as the inputs and targets of a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from compressor.errors import CompressorError
from compressor.loading.data.collating import Stacked

Array = np.ndarray[Any, Any]

TYPES: dict[str, type[np.generic]] = {
    "f": np.float32,
    "c": np.complex64,
    "i": np.int64,
    "u": np.int64,
    "b": np.bool_,
}
"""The kind of an array's numbers -> the type that a network is given them in."""


class Takes(Protocol):
    """Entries by samples' numbers."""

    def __len__(self) -> int: ...

    def take(self, indices: Sequence[int]) -> Tensor:
        """Return the entries of these samples, [samples, ...]."""


class Column:
    """One array of all samples, in one or more parts of one shape; they may lie on disk.

    Attributes:
        name: For messages.
        where: The files, for messages.
        parts: [samples, ...] each, in any byte order and layout.
        is_input: Whether its numbers have to be finite; minus infinity is, since masks that are
            added to scores hold it.
    """

    def __init__(self, name: str, where: str, parts: Sequence[Array], *, is_input: bool) -> None:
        self.name, self.where, self.parts, self.is_input = name, where, parts, is_input
        self.ends = np.cumsum([len(part) for part in parts])
        kind = parts[0].dtype.kind
        self.type = TYPES["i" if kind == "b" and not is_input else kind]  # yes and no are classes

    def __len__(self) -> int:
        return int(self.ends[-1])

    def take(self, indices: Sequence[int]) -> Tensor:
        """Return the entries of these samples in a type that networks take, [samples, ...].

        Raises:
            CompressorError: An input has a number that is not finite, or is too large for the type.
        """
        numbers = np.asarray(indices, dtype=np.int64)
        part_of = np.searchsorted(self.ends, numbers, side="right")
        values = np.empty((len(numbers), *self.parts[0].shape[1:]), self.type)
        with np.errstate(over="ignore", invalid="ignore"):
            for part in np.unique(part_of):
                here = part_of == part
                start = self.ends[part] - len(self.parts[part])
                entries = self.parts[part][numbers[here] - start]
                self._check_range(entries)
                values[here] = entries
        if self.is_input:
            self._check_finite(values, numbers)
        return torch.from_numpy(values)

    def check(self, size: int = 4096) -> None:
        """Read all entries once, so that what `take` refuses is refused before anything long."""
        edges = [*range(0, len(self), size), len(self)]
        for start, end in pairwise(edges):
            self.take(range(start, end))

    def _check_range(self, entries: Array) -> None:
        if entries.dtype == np.uint64 and entries.size and entries.max() > np.iinfo(np.int64).max:
            raise self._refusal(f"holds {entries.max()}, which is beyond 64-bit integers", "")

    def _check_finite(self, values: Array, numbers: Array) -> None:
        if values.dtype.kind not in "fc":
            return
        wrong = ~np.isfinite(values) & ~np.isneginf(values.real)
        if wrong.any():
            first = tuple(np.argwhere(wrong)[0])
            raise self._refusal(
                f"holds {values[first]} in sample {numbers[first[0]]}",
                "of what follows from it nothing would be finite",
            )

    def _refusal(self, what: str, consequence: str) -> CompressorError:
        return CompressorError(
            f"the array {self.name} {what}",
            where=self.where,
            consequence=consequence,
            next_step="leave such samples out, or repair the array (numpy.nan_to_num)",
        )


@dataclass(frozen=True)
class Columns(Dataset[Any]):
    """Arrays of one length as a dataset, of which many samples are read at once.

    Attributes:
        inputs: The one input, or inputs by name.
        target: What is to be learnt, if there is anything.
    """

    inputs: Takes | Mapping[str, Takes]
    target: Takes | None

    def __len__(self) -> int:
        one = self.inputs
        return len(next(iter(one.values())) if isinstance(one, Mapping) else one)

    def __getitems__(self, indices: Sequence[int]) -> Stacked:
        """Return the inputs (a tensor, or a dict of them) and the targets, [samples, ...] each."""
        inputs: Any
        if isinstance(self.inputs, Mapping):
            inputs = {name: column.take(indices) for name, column in self.inputs.items()}
        else:
            inputs = self.inputs.take(indices)
        return Stacked((inputs, None if self.target is None else self.target.take(indices)))

    def __getitem__(self, index: int) -> Any:
        inputs, target = self.__getitems__([index]).batch
        one = {n: x[0] for n, x in inputs.items()} if isinstance(inputs, dict) else inputs[0]
        return one, None if target is None else target[0]

    @property
    def labels(self) -> Tensor | None:
        """Return the targets of all samples, [samples, ...]; None where there are none."""
        return None if self.target is None else self.target.take(range(len(self)))
