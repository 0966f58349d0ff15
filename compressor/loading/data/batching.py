"""Read data in batches: shuffled, augmented, the same for the same seed."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressor.calls import Call
from compressor.errors import UsageError
from compressor.loading.data.augmenting import AUGMENTATIONS
from compressor.loading.data.dataset import Data
from compressor.loading.data.lengths import group_by_form

SHARE = 0.5
"""Of a device's free memory: data that take less can lie there."""


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
        is_static: bool,
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
        self.size = _image_size(data, augment) if self.augmentations else ()
        everything = np.arange(len(data))
        if seed is not None:
            everything = np.random.default_rng(seed).permutation(everything)
        self.chosen = everything[:limit]
        self.least = batch_size if is_static else min(2, batch_size) if drop_last else 1
        full, left = divmod(len(self.chosen), batch_size)
        self.count = full if ((drop_last or is_static) and full) else full + bool(left)
        if data.is_ragged:
            self.count = len(self._parts(self.chosen))
        self.passes = 0
        self.device: torch.device | None = None
        self.numbers = everything

    def __len__(self) -> int:
        return self.count

    @property
    def samples(self) -> int:
        """Return how many samples a pass takes."""
        return sum(map(len, self._parts(self.chosen)))

    def on(self, device: torch.device) -> Batches:
        """Return the same batches, made on the device.

        Samples, order and random numbers lie there, and nothing is sent while a pass goes on. Where
        the data are no arrays of images, or too large for the device, these batches are returned.
        """
        dataset, numbers = self.data.base
        if (
            self.data.is_ragged
            or not hasattr(dataset, "on")
            or getattr(dataset, "nbytes", 0) > _room(device)
        ):
            return self
        placed = copy.copy(self)
        placed.data = replace(self.data, dataset=dataset.on(device))
        placed.numbers, placed.device = numbers, device
        return placed

    def __iter__(self) -> Iterator[tuple[Call, Any]]:
        rng = np.random.default_rng((self.seed or 0, self.passes))
        self.passes += 1
        order = self.chosen if self.seed is None else rng.permutation(self.chosen)
        parts = self._parts(order)
        if self.data.is_ragged and self.seed is not None:
            parts = [parts[i] for i in rng.permutation(len(parts))]
        return self._here(parts, rng) if self.device is None else self._there(parts, rng)

    def _parts(self, order: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
        """Cut an order of samples into batches, of one shape each where shapes differ."""
        if self.data.is_ragged:
            forms = [self.data.form(int(index)) for index in order]
            return [order[part] for part in group_by_form(forms, self.batch_size, self.least)]
        starts = range(0, self.count * self.batch_size, self.batch_size)
        return [order[start : start + self.batch_size] for start in starts]

    def _here(
        self, parts: Sequence[np.ndarray[Any, Any]], rng: np.random.Generator
    ) -> Iterator[tuple[Call, Any]]:
        for part in parts:
            inputs, target = self.data.fetch(part.tolist())
            for augmentation in self.augmentations:
                inputs = _with_image(inputs, augmentation(_image(inputs), rng))
            yield inputs, target

    def _there(
        self, parts: Sequence[np.ndarray[Any, Any]], rng: np.random.Generator
    ) -> Iterator[tuple[Call, Any]]:
        """Yield the batches of a pass, made on the device.

        The numbers of all batches are drawn first, in the order in which `_here` draws them.
        """

        def move(arrays: Iterable[np.ndarray[Any, Any]]) -> Tensor:
            return torch.from_numpy(np.concatenate(list(arrays))).to(self.device)

        drawn = [[a.draw(rng, len(part), *self.size) for a in self.augmentations] for part in parts]
        numbers = [list(map(move, zip(*each, strict=True))) for each in zip(*drawn, strict=True)]
        indices = move([self.numbers[part] for part in parts])
        start = 0
        for part in parts:
            rows = slice(start, start + len(part))
            inputs, target = self.data.fetch(indices[rows])
            for augmentation, arrays in zip(self.augmentations, numbers, strict=True):
                some = (array[rows] for array in arrays)
                inputs = _with_image(inputs, augmentation.apply(_image(inputs), *some))
            yield inputs, target
            start += len(part)


def _room(device: torch.device) -> float:
    """Return how many bytes data may take on a device."""
    if device.type != "cuda":
        return math.inf
    return SHARE * torch.cuda.mem_get_info(device)[0]


def _image(call: Call) -> Any:
    """Return a call's first input, which augmentation moves if it is a batch of images."""
    return next(iter((*call.args, *call.kwargs.values())), None)


def _with_image(call: Call, image: Tensor) -> Call:
    if call.args:
        return replace(call, args=(image, *call.args[1:]))
    first = next(iter(call.kwargs))
    return replace(call, kwargs={**call.kwargs, first: image})


def _image_size(data: Data, augment: str) -> tuple[int, ...]:
    """Return the images' height and width; raise UsageError where the inputs are no images."""
    first = _image(data.first_sample)
    if not isinstance(first, Tensor) or first.ndim != 4:
        raise UsageError(
            f"{augment!r} moves images, but the inputs are none",
            where=data.name,
            next_step="use the augmentation 'none'",
        )
    return tuple(first.shape[-2:])


def batches(
    data: Data,
    batch_size: int,
    *,
    seed: int | None = None,
    augment: str = "none",
    limit: int | None = None,
    drop_last: bool = False,
    is_static: bool = False,
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
        drop_last: Leave out an incomplete last batch, unless it is the only one; where shapes
            differ, only batches of a single sample.
        is_static: Leave out all incomplete batches, unless there are no others.

    Raises:
        UsageError: Sizes below one, an unknown augmentation, or one for inputs that are no images.
    """
    return Batches(data, batch_size, seed, augment, limit, drop_last, is_static)
