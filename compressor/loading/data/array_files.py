"""Read the arrays of `.npz` and `.npy` files, without running anything in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compressor.errors import CompressorError
from compressor.listing import some_of
from compressor.loading.data.columns import TYPES, Array

HOW = "numpy.savez(path, inputs=..., targets=...)"
"""How an archive of samples is written."""

_OBJECTS = "holds Python objects, which only running code could read"


@dataclass(frozen=True)
class Stored:
    """An array of a file.

    Attributes:
        name: What it is called.
        array: [samples, ...]; empty where it cannot hold samples.
        problem: Why it cannot; "" where it can.
        path: The file.
        is_mapped: Whether it stays on disk.
    """

    name: str
    array: Array
    problem: str
    path: Path
    is_mapped: bool = False

    @property
    def words(self) -> str:
        """Return its type and shape in words."""
        return f"{self.array.dtype} of shape {self.array.shape}"


def read_arrays(path: Path, name_of: Callable[[str], str]) -> list[Stored]:
    """Read an archive's arrays under their names, or an `.npy` file's under what its stem says.

    The array of an `.npy` file stays on disk.

    Raises:
        CompressorError: The file cannot be read.
    """
    with path.open("rb") as file:
        is_single = file.read(6) == b"\x93NUMPY"
    try:
        if is_single:
            return [_describe(name_of(path.stem), _map(path), path, is_mapped=True)]
        # numpy leaves a file open that it cannot read
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return [_entry(archive, name, path) for name in archive.files]
    except Exception as error:  # zip, lzma, pickle and numpy each have their own
        why = f"it {_OBJECTS}" if "allow_pickle" in str(error) else str(error).partition("\n")[0]
        raise CompressorError(
            f"not a readable {'.npy array' if is_single else '.npz archive'}: {why}",
            where=str(path),
            next_step=f"write one with {HOW}",
        ) from error


def _map(path: Path) -> Array:
    """Return an array that is read where it is looked at; a small one's objects are refused."""
    array: Array
    try:
        array = np.load(path, allow_pickle=False, mmap_mode="c")
    except ValueError:  # nothing to map, or objects
        array = np.load(path, allow_pickle=False)
    return array


def _entry(archive: Any, name: str, path: Path) -> Stored:
    try:
        array = archive[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        return Stored(name, np.empty(0), _OBJECTS, path)
    if not isinstance(array, np.ndarray):
        return Stored(name, np.empty(0), "is no array of NumPy", path)
    return _describe(name, array, path)


def _describe(name: str, array: Array, path: Path, *, is_mapped: bool = False) -> Stored:
    problem = ""
    if array.dtype.kind not in TYPES:
        problem = f"holds {array.dtype}, and no numbers"
    elif not array.ndim:
        problem = "is a single number"
    return Stored(name, array, problem, path, is_mapped)


def check_joints(arrays: Mapping[str, Sequence[Stored]]) -> None:
    """Check that arrays of one name can be joined, and that all have as many samples.

    Args:
        arrays: By their names, one for each file that has it.

    Raises:
        CompressorError: They differ in shape beside the samples, in the kind of numbers or in the
            number of samples, or there is none.
    """
    counts: dict[Path | str, dict[str, int]] = {}
    for name, some in arrays.items():
        for stored in some:
            _check_alike(name, some[0], stored)
            for where in (stored.path, "all"):
                counted = counts.setdefault(where, {})
                counted[name] = counted.get(name, 0) + len(stored.array)
    for each in counts.values():
        if len(set(each.values())) > 1:
            raise CompressorError(
                "the files do not go together, or the arrays of one: there are "
                + " but ".join(f"{count} {name}" for name, count in each.items()),
                where=list_paths(s for some in arrays.values() for s in some),
                next_step="give as many inputs as targets, sample by sample along dimension 0",
            )


def _check_alike(name: str, first: Stored, other: Stored) -> None:
    one, two = first.array, other.array
    if one.shape[1:] != two.shape[1:] or one.dtype.kind != two.dtype.kind:
        raise CompressorError(
            f"the files do not go together: {name} is {first.words}, then {other.words}",
            where=f"{first.path} and {other.path}",
            next_step="give files whose samples have one shape and one kind of numbers; a file "
            "of targets is named targets.npy, one of a further input as the network names it",
        )
    if not two.size:
        raise CompressorError(
            f"there is no sample: {name} is {other.words}",
            where=str(other.path),
            next_step="give data with at least one sample",
        )


def list_paths(some: Iterable[Stored]) -> str:
    """Return the paths of the files that arrays are of, in words."""
    return some_of(dict.fromkeys(str(stored.path) for stored in some))
