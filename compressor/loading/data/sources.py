"""Open what the user names (--data, --test) as a dataset of normalised inputs and targets."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.datasets import ImageFolder

from compressor.errors import CompressorError, UsageError
from compressor.loading.callables import import_named
from compressor.loading.data.arrays import load_arrays, statistics
from compressor.loading.data.dataset import Data
from compressor.loading.data.objects import data_of, is_dataset

_RESIZE = 256 / 224  # ImageNet's convention: resize the short side, then crop the centre


def load_data(
    specs: Sequence[str],
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    input_size: tuple[int, int] | None = None,
) -> Data:
    """Open the data that the user named.

    Args:
        specs: One or more `.npz` files (`images` uint8 [N, H, W, C] or [N, H, W], `labels` integer
            [N], optional); or one folder with a sub-folder of images per class (classes in
            alphabetical order; sub-folders that are all named by numbers are those classes); or
            one 'package.module:name' or 'path/file.py:name' of a dataset, or of a function that
            returns one. Samples are (inputs, target), the inputs alone, or dicts.
        mean: Per channel (or one for all), after division by 255. Default: ImageNet's for three
            channels, 0.5 for others.
        std: The same for the standard deviation.
        input_size: Height and width that a folder's images are cut to (default 224×224).

    Raises:
        UsageError: There is no such data, or options do not apply to it.
        CompressorError: The data does not hold what it should.
    """
    if not specs:
        raise UsageError(
            "no data was named",
            next_step="name an .npz file, a folder of images, or package.module:callable",
        )
    paths = [Path(spec) for spec in specs]
    if all(path.is_file() for path in paths):
        for path in paths:
            _refuse_other_files(path)
        return load_arrays(paths, mean, std)
    if len(specs) > 1:
        missing = [spec for spec, path in zip(specs, paths, strict=True) if not path.is_file()]
        raise UsageError(
            "several data sources can only be .npz files",
            where=f"not a file: {missing[0]}",
            next_step="name several .npz files, or one folder or callable",
        )
    if paths[0].is_dir():
        return _folder(paths[0], mean, std, input_size or (224, 224))
    if ":" not in specs[0]:
        raise UsageError(
            f"there is no data at {specs[0]}",
            next_step="name an .npz file, a folder of images, or package.module:name of a dataset",
        )
    if mean is not None or std is not None:
        raise UsageError(
            "a dataset of your own is taken as it comes; mean and std do not apply to it",
            where=specs[0],
            next_step="normalise inside the dataset",
        )
    return _load_named(specs[0])


_BEGINNINGS = (b"PK", b"\x93NUMPY")
"""The first bytes of zip archives and of single NumPy arrays."""


def _refuse_other_files(path: Path) -> None:
    """Raise UsageError for a file that is evidently meant to be read some other way."""
    with path.open("rb") as file:
        beginning = file.read(1024)
    if not beginning or beginning.startswith(_BEGINNINGS):
        return
    is_code = path.suffix == ".py"
    other = "a text file" if b"\0" not in beginning else "a file of another kind"
    raise UsageError(
        "data is an .npz archive, a folder of images or a dataset's name, and this is "
        f"{'a Python file' if is_code else other}",
        where=str(path),
        next_step="write an archive with numpy.savez(path, images=..., labels=...), or name a "
        f"dataset, or a function that returns one: {path if is_code else 'path/file.py'}:name",
    )


class _ClassFolder(ImageFolder):  # type: ignore[misc]
    """torchvision's folder of images, read by several threads.

    Where all class names are numbers, they mean those classes.
    """

    @property
    def labels(self) -> Tensor:
        return torch.tensor(self.targets)

    def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
        names, indices = super().find_classes(directory)
        if all(name.isdecimal() for name in names):
            indices = {name: int(name) for name in names}
        return names, indices

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        with ThreadPoolExecutor() as readers:
            return list(readers.map(self.__getitem__, indices))


def _folder(
    path: Path,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    input_size: tuple[int, int],
) -> Data:
    grey = mean is not None and len(mean) == 1
    means, stds = statistics(mean, std, 1 if grey else 3)
    steps = [
        transforms.Resize(round(max(input_size) * _RESIZE)),
        transforms.CenterCrop(input_size),
        transforms.ToTensor(),
        transforms.Normalize(means.flatten(), stds.flatten()),
    ]
    try:
        dataset = _ClassFolder(
            str(path),
            transform=transforms.Compose(steps),
            loader=lambda file: _read_image(file, "L" if grey else "RGB"),
        )
    except FileNotFoundError as error:
        raise CompressorError(
            f"the folder holds no images in sub-folders, one per class: {error}",
            where=str(path),
            next_step="give a folder with a sub-folder of images for each class",
        ) from error
    return Data(path.name, dataset, True, int(dataset.labels.max()) + 1)


def _read_image(path: str, mode: str) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert(mode)
    except (OSError, ValueError, SyntaxError) as error:
        raise CompressorError(
            f"not a readable image: {error}",
            where=path,
            next_step="repair it or take it out of the folder",
        ) from error


def _load_named(spec: str) -> Data:
    """The dataset that a spec names, or that the function or class which it names gives."""
    found = import_named(spec)
    if callable(found) and not is_dataset(found):
        try:
            found = found()
        except Exception as error:  # the callable is the user's code
            raise CompressorError(
                f"the callable raised {type(error).__name__}: {error}",
                where=spec,
                next_step="it is called without arguments and returns a dataset",
            ) from error
    data = data_of(found, spec)
    return replace(data, labelled=data.fetch([0]).target is not None)
