"""Split data and read it in batches: held out, shuffled, augmented, the same for the same seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Subset

from compressor.calls import Call
from compressor.data.dataset import Data
from compressor.errors import CompressorError, UsageError

_LOOKED_AT = 256  # samples of a dataset that does not say its labels


def hold_out(data: Data, fraction: float = 0.1, seed: int = 0) -> tuple[Data, Data]:
    """Split data at random into (rest, held): disjoint, complete, at least one sample in each.

    Args:
        data: Not changed.
        fraction: The share of the samples that is held out.
        seed: Seed of the choice.

    Raises:
        UsageError: The fraction is not between 0 and 1.
        CompressorError: There is only one sample.
    """
    if not 0 < fraction < 1:
        raise UsageError(
            f"the share to hold out must lie between 0 and 1, not {fraction}",
            next_step="give a share such as 0.1",
        )
    if len(data) < 2:
        raise CompressorError(
            "one sample cannot be split into training and test data",
            where=data.name,
            next_step="give more data, or separate test data",
        )
    order = np.random.default_rng(seed).permutation(len(data)).tolist()
    held = min(len(data) - 1, max(1, round(fraction * len(data))))
    return (
        replace(data, dataset=Subset(data.dataset, sorted(order[held:]))),
        replace(
            data,
            name=f"{data.name} (held out)",
            dataset=Subset(data.dataset, sorted(order[:held])),
        ),
    )


def check_labels(data: Data, classes: int) -> None:
    """Check that labels are classes of a network that has this many: from 0 below `classes`.

    All labels of arrays and folders are looked at; of other datasets, 256 samples spread evenly.
    Labels that are no integers pass.

    Raises:
        CompressorError: A label is out of range; it names the first such sample and its label.
    """
    if not data.labelled:
        return
    labels, indices = _labels(data)
    if labels.is_floating_point() or labels.is_complex():
        return
    wrong = ((labels < 0) | (labels >= classes)).nonzero()
    if len(wrong):
        first = tuple(wrong[0].tolist())
        raise CompressorError(
            f"the label of sample {indices[first[0]]} is {int(labels[first])}, "
            f"but the network has {classes} classes (0 to {classes - 1})",
            where=data.name,
            next_step="give the data that the network was trained for, or repair its labels",
        )


def _labels(data: Data) -> tuple[Tensor, range]:
    """Return labels, and the indices of the samples that they belong to."""
    subset = data.dataset if isinstance(data.dataset, Subset) else None
    labels = getattr(subset.dataset if subset else data.dataset, "labels", None)
    if isinstance(labels, Tensor):
        return labels[torch.tensor(subset.indices)] if subset else labels, range(len(data))
    indices = range(0, len(data), max(1, len(data) // _LOOKED_AT))
    return torch.as_tensor(data.fetch(indices).target), indices


Augmentation = Callable[[Tensor, np.random.Generator], Tensor]


def _crop(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Move each image by up to an eighth of its size, in [samples, channels, height, width].

    Zeros (the mean colour) move in.
    """
    samples, _, height, width = images.shape
    rows, columns = height // 8, width // 8
    padded = F.pad(images, (columns, columns, rows, rows))
    tops, lefts = (
        torch.from_numpy(rng.integers(0, 2 * most + 1, samples)).to(images.device)
        for most in (rows, columns)
    )
    every = torch.arange(samples, device=images.device)[:, None, None]
    down = (tops[:, None] + torch.arange(height, device=images.device))[:, :, None]
    across = (lefts[:, None] + torch.arange(width, device=images.device))[:, None, :]
    return padded.movedim(1, -1)[every, down, across].movedim(-1, 1).contiguous()


def _flip(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Mirror each image left to right with a chance of one half."""
    mirrored = torch.from_numpy(rng.random(len(images)) < 0.5).view(-1, 1, 1, 1)
    mirrored = mirrored.to(images.device)
    return torch.where(mirrored, images.flip(-1), images)


AUGMENTATIONS: dict[str, tuple[Augmentation, ...]] = {
    "none": (),
    "crop": (_crop,),
    "crop-flip": (_crop, _flip),
}


class Batches:
    """An iterable over data in batches (see `batches`); every pass shuffles and augments anew."""

    def __init__(
        self,
        data: Data,
        batch_size: int,
        seed: int | None,
        augment: str,
        limit: int | None,
        drop_last: bool,
    ) -> None:
        if augment not in AUGMENTATIONS:
            raise UsageError(
                f"there is no augmentation {augment!r}",
                next_step=f"choose one of {', '.join(AUGMENTATIONS)}",
            )
        if batch_size < 1 or (limit is not None and limit < 1):
            raise UsageError(
                f"batches of {batch_size}, from {limit} samples: both must be at least one",
                next_step="give a batch size and a number of samples of at least one",
            )
        self.data, self.batch_size, self.seed = data, batch_size, seed
        self.augmentations = AUGMENTATIONS[augment]
        if self.augmentations:
            _require_images(data, augment)
        everything = np.arange(len(data))
        if seed is not None:
            everything = np.random.default_rng(seed).permutation(everything)
        self.chosen = everything[:limit]
        full, left = divmod(len(self.chosen), batch_size)
        self.count = full if (drop_last and full) else full + bool(left)
        self.passes = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[Call, Any]]:
        rng = np.random.default_rng((self.seed or 0, self.passes))
        self.passes += 1
        order = self.chosen if self.seed is None else rng.permutation(self.chosen)
        for number in range(self.count):
            start = number * self.batch_size
            inputs, target = self.data.fetch(order[start : start + self.batch_size].tolist())
            for augmentation in self.augmentations:
                inputs = _with_image(inputs, augmentation(_image(inputs), rng))
            yield inputs, target


def _image(call: Call) -> Any:
    """Return a call's first input, which augmentation moves if it is a batch of images."""
    return next(iter((*call.args, *call.kwargs.values())), None)


def _with_image(call: Call, image: Tensor) -> Call:
    if call.args:
        return replace(call, args=(image, *call.args[1:]))
    first = next(iter(call.kwargs))
    return replace(call, kwargs={**call.kwargs, first: image})


def _require_images(data: Data, augment: str) -> None:
    first = _image(data.first_sample)
    if not isinstance(first, Tensor) or first.ndim != 4:
        raise UsageError(
            f"{augment!r} moves images, but the inputs are none",
            where=data.name,
            next_step="use the augmentation 'none'",
        )


def batches(
    data: Data,
    batch_size: int,
    *,
    seed: int | None = None,
    augment: str = "none",
    limit: int | None = None,
    drop_last: bool = False,
) -> Batches:
    """Read data in batches: pairs of the network's call and the target (None where there is none).

    The result has a length and can be iterated over many times. Passes differ from each other; two
    `batches` with the same seed give the same passes.

    Args:
        data: The samples.
        batch_size: Samples in a batch.
        seed: Seed of order, choice and augmentation; None keeps the data's order.
        augment: "none", "crop" (by up to an eighth of the size) or "crop-flip".
        limit: Use only this many samples: the first, or with a seed a random choice.
        drop_last: Leave out an incomplete last batch, unless it is the only one.

    Raises:
        UsageError: Sizes below one, an unknown augmentation, or one for inputs that are no images.
    """
    return Batches(data, batch_size, seed, augment, limit, drop_last)
