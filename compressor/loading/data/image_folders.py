"""Read a folder of images, flat or with a sub-folder per class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms

from compressor.errors import CompressorError, UsageError
from compressor.listing import some_of
from compressor.loading.data.dataset import Data
from compressor.loading.data.images import statistics
from compressor.loading.data.reading import Reading
from compressor.loading.data.threads import ReadByThreads

_RESIZE = 256 / 224  # ImageNet's convention: resize the short side, then crop the centre
_Read = Callable[[Path], Tensor]


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


class _ImageFiles(ReadByThreads):
    """Images in files.

    Attributes:
        paths: The files.
        labels: Their classes, [samples]; None where they have none.
    """

    def __init__(self, paths: Sequence[Path], labels: Tensor | None, read: _Read) -> None:
        self.paths, self.labels, self._read = paths, labels, read

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int | None]:
        label = None if self.labels is None else int(self.labels[index])
        return self._read(self.paths[index]), label


def load_images(paths: Sequence[Path], folder: Path, reading: Reading) -> Data:
    """Read the images of a folder, flat or with a sub-folder per class.

    Args:
        paths: The images.
        folder: What they lie in.
        reading: Their size, and how they are normalised.

    Raises:
        CompressorError: There is no image, or none in one of the sub-folders.
        UsageError: Some lie in sub-folders, and some do not.
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
    prepare = transforms.Compose(steps)
    classes = classes_of_folders(paths, folder, "images")
    _check_each_has_some(paths, folder, is_flat=classes is None)
    labels = None if classes is None else torch.tensor(classes)
    dataset = _ImageFiles(
        paths, labels, lambda path: prepare(_read_image(path, "L" if grey else "RGB"))
    )
    number = None if classes is None else max(classes) + 1
    return Data(folder.name, dataset, labels is not None, number)


def _check_each_has_some(paths: Sequence[Path], folder: Path, *, is_flat: bool) -> None:
    """Check that there are images, and some of each class: else classes would be misnumbered."""
    tops = {path.relative_to(folder).parts[0] for path in paths}
    names = sorted(d.name for d in folder.iterdir() if d.is_dir() and d.name[0] != ".")
    empty = [name for name in names if name not in tops]
    if not paths or (empty and not is_flat):
        raise CompressorError(
            f"the folder holds no images{f' in {some_of(empty)}' if empty else ''}",
            where=str(folder),
            next_step="give a folder of images, or with a sub-folder of them for each class, of "
            "recordings, of texts, or of .npy files",
        )


def _read_image(path: Path, mode: str) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert(mode)
    except (OSError, ValueError, SyntaxError) as error:
        raise CompressorError(
            f"not a readable image: {error}",
            where=str(path),
            next_step="repair it or take it out of the folder",
        ) from error
