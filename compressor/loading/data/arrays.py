"""Make a dataset of the arrays in `.npz` and `.npy` files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from compressor.errors import UsageError
from compressor.listing import some_of
from compressor.loading.data.array_files import Stored, check_joints, list_paths, read_arrays
from compressor.loading.data.array_roles import IMAGES, Roles, name_of_file, tell_roles
from compressor.loading.data.columns import Array, Column, Columns, Takes
from compressor.loading.data.dataset import Data
from compressor.loading.data.images import ImageArrays
from compressor.loading.data.reading import Reading

Arrays = Mapping[str, Sequence[Stored]]


def load_arrays(paths: Sequence[Path], reading: Reading) -> Data:
    """Read the arrays of one or more files as one dataset.

    Arrays of one name are joined in the order of the files. uint8 `images` are normalised; all
    other numbers are taken as they are, real ones in single precision.

    Args:
        paths: `.npz` and `.npy` files.
        reading: Says what the network takes, and how images are normalised.

    Raises:
        UsageError: An option does not apply, or arrays are not what the network takes.
        CompressorError: A file cannot be read, does not go with the others, or holds numbers that
            are not finite.
    """
    arrays: dict[str, list[Stored]] = {}
    for path in paths:
        for stored in read_arrays(path, lambda stem: name_of_file(stem, reading.binding)):
            arrays.setdefault(stored.name, []).append(stored)
    problems = {
        name: next((s.problem for s in some if s.problem), "") for name, some in arrays.items()
    }
    roles = tell_roles(problems, reading.binding, ", ".join(map(str, paths)))
    used = (*roles.inputs, *([roles.target] if roles.target else []))
    check_joints({name: arrays[name] for name in used})
    name = ", ".join(path.name for path in paths)
    left_out = [each for each in arrays if each not in used]
    notes = (f"of {name} the network is not given {some_of(left_out)}",) if left_out else ()
    dataset = _dataset(roles, arrays, reading)
    classes = _count_classes(arrays[roles.target]) if roles.target else None
    return Data(name, dataset, roles.target is not None, classes, notes=notes)


def _dataset(roles: Roles, arrays: Arrays, reading: Reading) -> Dataset[Any]:
    pictures = [name for name in roles.inputs if _are_pictures(name, arrays[name])]
    if not pictures:
        _refuse_statistics(roles, arrays, reading)
    target = None if roles.target is None else _column(arrays[roles.target], is_input=False)
    if pictures == [*roles.inputs] and not roles.by_name:
        labels = None if target is None else target.take(range(len(target)))
        return ImageArrays(_join(arrays[IMAGES]), labels, reading.mean, reading.std)
    inputs: dict[str, Takes] = {}
    for name in roles.inputs:
        if name in pictures:
            inputs[name] = ImageArrays(_join(arrays[name]), None, reading.mean, reading.std)
        else:
            inputs[name] = _column(arrays[name], is_input=True)
    return Columns(inputs if roles.by_name else inputs[roles.inputs[0]], target)


def _refuse_statistics(roles: Roles, arrays: Arrays, reading: Reading) -> None:
    given = reading.of_images_alone()
    if given:
        first = arrays[roles.inputs[0]][0]
        raise UsageError(
            f"{' and '.join(given)} normalise uint8 {IMAGES}; {first.name}, {first.words}, is "
            "taken as it is",
            where=str(first.path),
            next_step="normalise it before it is written, or write uint8 images of N×H×W×C under "
            f"the name {IMAGES}",
        )


def _are_pictures(name: str, some: Sequence[Stored]) -> bool:
    return name == IMAGES and all(
        stored.array.dtype == np.uint8 and stored.array.ndim in (3, 4) for stored in some
    )


def _join(some: Sequence[Stored]) -> Array:
    return some[0].array if len(some) == 1 else np.concatenate([s.array for s in some])


def _column(some: Sequence[Stored], *, is_input: bool) -> Column:
    arrays = [stored.array for stored in some]
    column = Column(some[0].name, list_paths(some), arrays, is_input=is_input)
    if not any(stored.is_mapped for stored in some):
        column.check()
    return column


def _count_classes(some: Sequence[Stored]) -> int | None:
    if any(stored.array.dtype.kind not in "iu" or stored.array.ndim != 1 for stored in some):
        return None
    return max(int(stored.array.max()) for stored in some) + 1
