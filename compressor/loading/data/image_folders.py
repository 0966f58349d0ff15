"""Read a folder of images: a sub-folder per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.datasets import ImageFolder

from compressor.errors import CompressorError, UsageError
from compressor.listing import some_of
from compressor.loading.data.dataset import Data
from compressor.loading.data.images import statistics
from compressor.loading.data.reading import Reading

_RESIZE = 256 / 224  # ImageNet's convention: resize the short side, then crop the centre


def number_classes(names: Sequence[str]) -> dict[str, int]:
    """Number sub-folders in alphabetical order; names that are all numbers mean those classes."""
    if all(name.isdecimal() for name in names):
        return {name: int(name) for name in names}
    return {name: number for number, name in enumerate(sorted(names))}


def classes_of_folders(
    paths: Sequence[Path], folder: Path, words: str, known: Mapping[str, int] | None = None
) -> list[int] | None:
    """Return the class of each file by the sub-folder that it lies in; None where there is none.

    Args:
        paths: The files.
        folder: What they lie in.
        words: What messages call them.
        known: Names of classes and their numbers, for sub-folders that are all named by these.

    Raises:
        UsageError: Some files lie in sub-folders, and some do not.
    """
    tops = [path.relative_to(folder).parts[:-1][:1] for path in paths]
    if not any(tops):
        return None
    if not all(tops):
        loose = [path.name for path, top in zip(paths, tops, strict=True) if not top]
        raise UsageError(
            f"some {words} lie in sub-folders, which are classes, and {some_of(loose)} do not",
            where=str(folder),
            next_step="put all into sub-folders, or none",
        )
    names = sorted({top[0] for top in tops})
    is_known = known is not None and known.keys() >= set(names)
    numbers = known if known is not None and is_known else number_classes(names)
    return [numbers[top[0]] for top in tops]


class _ClassFolder(ImageFolder):  # type: ignore[misc]  # it has no types
    """torchvision's folder of images, read by several threads."""

    @property
    def labels(self) -> Tensor:
        return torch.tensor(self.targets)

    def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
        names, _ = super().find_classes(directory)
        return names, number_classes(names)

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        with ThreadPoolExecutor() as readers:
            return list(readers.map(self.__getitem__, indices))


def load_images(path: Path, reading: Reading) -> Data:
    """Read a folder with a sub-folder of images per class.

    Raises:
        CompressorError: There is no image in a sub-folder.
    """
    grey = reading.mean is not None and len(reading.mean) == 1
    size = reading.image_size
    means, stds = statistics(reading.mean, reading.std, 1 if grey else 3)
    steps = [
        transforms.Resize(round(max(size) * _RESIZE)),
        transforms.CenterCrop(size),
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
            next_step="give a folder with a sub-folder of images for each class, of recordings, or "
            "of .npy files",
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
