"""Hold uint8 images in memory, and normalise a batch of them as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from compressor.errors import UsageError
from compressor.loading.data.collating import Stacked

COLOUR = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # ImageNet's mean and std
GREY = ((0.5,), (0.5,))


class ImageArrays(Dataset[Any]):
    """A dataset of uint8 images in memory; a batch is normalised as a whole when it is asked for.

    Attributes:
        images: [samples, height, width, channels] uint8.
        labels: [samples, ...], or None.
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

    def take(self, indices: Sequence[int]) -> Tensor:
        """Return normalised images [samples, channels, height, width] float32."""
        pixels = np.ascontiguousarray(self.images[np.asarray(indices)])
        return _normalise(torch.from_numpy(pixels), self.mean, self.std)

    def __getitems__(self, indices: Sequence[int]) -> Stacked:
        """Return normalised images and their labels."""
        labels = None if self.labels is None else self.labels[np.asarray(indices)]
        return Stacked((self.take(indices), labels))

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor | None]:
        inputs, labels = self.__getitems__([index]).batch
        return inputs[0], None if labels is None else labels[0]

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
        return Stacked((inputs, None if self.labels is None else self.labels[indices]))


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
