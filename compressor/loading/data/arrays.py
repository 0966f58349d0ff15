"""Read images in memory from `.npz` files with arrays `images` and, if there are any, `labels`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from compressor.errors import CompressorError, UsageError
from compressor.loading.data.collating import Stacked
from compressor.loading.data.dataset import Data

COLOUR = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # ImageNet's mean and std
GREY = ((0.5,), (0.5,))


class ImageArrays(Dataset[Any]):
    """A dataset of uint8 images in memory; a batch is normalised as a whole when it is asked for.

    Attributes:
        images: [samples, height, width, channels] uint8.
        labels: [samples] int64, or None.
        mean: [channels, 1, 1], after division by 255.
        std: [channels, 1, 1], likewise.
    """

    def __init__(
        self,
        images: np.ndarray[Any, Any],
        labels: Tensor | None,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
    ) -> None:
        self.images = images if images.ndim == 4 else images[..., None]
        self.labels = labels
        self.mean, self.std = statistics(mean, std, self.images.shape[3])

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: Sequence[int]) -> Stacked:
        """Return normalised images [samples, channels, height, width] float32, and their labels."""
        chosen = np.asarray(indices)
        inputs = _normalise(torch.from_numpy(self.images[chosen]), self.mean, self.std)
        return Stacked(inputs, None if self.labels is None else self.labels[chosen])

    def __getitem__(self, index: int) -> tuple[Tensor, int | None]:
        inputs, labels = self.__getitems__([index])
        return inputs[0], None if labels is None else int(labels[0])

    @property
    def nbytes(self) -> int:
        """How many bytes the images take."""
        return self.images.nbytes

    def on(self, device: torch.device) -> PlacedImages:
        """Return the same images in the device's memory."""
        labels = None if self.labels is None else self.labels.to(device)
        images, (mean, std) = torch.from_numpy(self.images), (self.mean, self.std)
        return PlacedImages(images.to(device), labels, mean.to(device), std.to(device))


class PlacedImages(Dataset[Any]):
    """uint8 images [N, H, W, C] in a device's memory, which are normalised there.

    They are read many at a time, by their numbers, a tensor on the device.
    """

    def __init__(self, images: Tensor, labels: Tensor | None, mean: Tensor, std: Tensor) -> None:
        self.images, self.labels, self.mean, self.std = images, labels, mean, std

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: Tensor) -> Stacked:
        inputs = _normalise(self.images[indices], self.mean, self.std)
        return Stacked(inputs, None if self.labels is None else self.labels[indices])


def _normalise(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Normalise images: [N, H, W, C] of uint8 become [N, C, H, W] of float32."""
    inputs = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    return inputs.div_(255).sub_(mean).div_(std)


def statistics(
    mean: Sequence[float] | None, std: Sequence[float] | None, channels: int
) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation for normalisation, each [channels, 1, 1] float32.

    Args:
        mean: One value or one per channel; None: ImageNet's for three channels, 0.5 for others.
        std: The same for the standard deviation.
        channels: The number of the images' channels.

    Raises:
        UsageError: Another number of values, or a standard deviation that is not above zero.
    """
    defaults = COLOUR if channels == 3 else GREY
    given = [mean if mean is not None else defaults[0], std if std is not None else defaults[1]]
    for name, values in zip(("mean", "std"), given, strict=True):
        if len(values) not in (1, channels):
            raise UsageError(
                f"the {name} has {len(values)} values, the images have {channels} channels",
                next_step=f"give one value, or {channels}",
            )
    if not all(value > 0 for value in given[1]):
        raise UsageError(
            f"the std must be above zero, not {list(given[1])}",
            next_step="give the standard deviation of each channel, above zero",
        )
    first, second = (torch.tensor(list(v), dtype=torch.float32) for v in given)
    return first.expand(channels).view(-1, 1, 1), second.expand(channels).view(-1, 1, 1)


def load_arrays(
    paths: Sequence[Path], mean: Sequence[float] | None, std: Sequence[float] | None
) -> Data:
    """Read images and labels from one or more `.npz` files as one dataset.

    Args:
        paths: The files, whose samples are joined in this order.
        mean: See `statistics`.
        std: See `statistics`.

    Raises:
        CompressorError: A file cannot be read, holds other arrays, or does not go with the others.
    """
    parts = [_read_npz(path) for path in paths]
    for path, (images, labels) in zip(paths, parts, strict=True):
        if images.shape[1:] != parts[0][0].shape[1:] or (labels is None) != (parts[0][1] is None):
            raise CompressorError(
                "the files do not go together: other image sizes, or labels in only one of them",
                where=f"{paths[0]} and {path}",
                next_step="give files of images of one size, all with labels or all without",
            )
    images = np.concatenate([part[0] for part in parts]) if len(parts) > 1 else parts[0][0]
    known = [part[1] for part in parts if part[1] is not None]
    targets = torch.from_numpy(np.concatenate(known)) if known else None
    classes = int(targets.max()) + 1 if targets is not None else None
    name = ", ".join(path.name for path in paths)
    return Data(name, ImageArrays(images, targets, mean, std), bool(known), classes)


def _read_npz(path: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
    """Read and check one file's images (uint8) and labels (int64, or None)."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            found = {key: archive[key] for key in ("images", "labels") if key in archive.files}
            keys = ", ".join(archive.files) or "nothing"
    except Exception as error:  # zip, lzma, pickle and numpy each have their own
        raise CompressorError(
            f"not a readable .npz archive: {error}",
            where=str(path),
            next_step="write one with numpy.savez(path, images=..., labels=...)",
        ) from error
    images, labels = found.get("images"), found.get("labels")
    problem = _image_problem(images, keys)
    if images is None or problem:
        raise CompressorError(
            problem,
            where=str(path),
            next_step="images must be uint8, N×H×W×C or N×H×W",
        )
    if labels is None:
        return images, None
    problem = _label_problem(labels, len(images))
    if problem:
        raise CompressorError(
            problem, where=str(path), next_step="labels must be N integers, from 0 upwards"
        )
    return images, labels.astype(np.int64)


def _image_problem(images: np.ndarray[Any, Any] | None, keys: str) -> str:
    if images is None:
        return f"the archive has no array 'images'; it holds {keys}"
    if images.dtype != np.uint8:
        return f"the images are {images.dtype}, not uint8"
    if images.ndim not in (3, 4):
        return f"the images have shape {images.shape}"
    return "" if images.size else f"there is no image: the shape is {images.shape}"


def _label_problem(labels: np.ndarray[Any, Any], samples: int) -> str:
    if labels.ndim != 1:
        return f"the labels have shape {labels.shape}"
    if len(labels) != samples:
        return f"there are {samples} images but {len(labels)} labels"
    if labels.dtype.kind not in "iu":
        return f"the labels are {labels.dtype}, not integers"
    below = np.flatnonzero(labels < 0)
    return f"label {below[0]} is {labels[below[0]]}, below zero" if len(below) else ""
