"""Change images at random: crops and flips, the same for the same seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Drawn = tuple[np.ndarray[Any, Any], ...]
"""Random numbers of some images: arrays with an entry per image."""


@dataclass(frozen=True)
class Augmentation:
    """A random change of images, in two parts: numbers are drawn, then images changed by them.

    So the numbers of a whole pass can be drawn at once and brought to where the images are.

    Attributes:
        draw: Draws numbers by a generator for so many images of a height and a width.
        apply: Changes images [N, C, H, W] as the numbers say, which lie on the same device.
    """

    draw: Callable[[np.random.Generator, int, int, int], Drawn]
    apply: Callable[..., Tensor]

    def __call__(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """Change images [N, C, H, W] by numbers that are drawn for them."""
        drawn = self.draw(rng, len(images), *images.shape[-2:])
        return self.apply(images, *(torch.from_numpy(each).to(images.device) for each in drawn))


def _draw_moves(rng: np.random.Generator, samples: int, height: int, width: int) -> Drawn:
    """Draw how far each image is moved down and across, by up to an eighth of its size."""
    tops, lefts = (rng.integers(0, 2 * (size // 8) + 1, samples) for size in (height, width))
    return tops, lefts


def _crop(images: Tensor, tops: Tensor, lefts: Tensor) -> Tensor:
    """Move each image [N, C, H, W]; zeros (the mean colour) move in."""
    samples, _, height, width = images.shape
    rows, columns = height // 8, width // 8
    padded = F.pad(images, (columns, columns, rows, rows))
    every = torch.arange(samples, device=images.device)[:, None, None]
    down = (tops[:, None] + torch.arange(height, device=images.device))[:, :, None]
    across = (lefts[:, None] + torch.arange(width, device=images.device))[:, None, :]
    return padded.movedim(1, -1)[every, down, across].movedim(-1, 1).contiguous()


def _draw_sides(rng: np.random.Generator, samples: int, height: int, width: int) -> Drawn:
    return (rng.random(samples) < 0.5,)


def _flip(images: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror images [N, C, H, W] left to right, those for which `mirrored` says so."""
    return torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images)


CROP, FLIP = Augmentation(_draw_moves, _crop), Augmentation(_draw_sides, _flip)
AUGMENTATIONS: dict[str, tuple[Augmentation, ...]] = {
    "none": (),
    "crop": (CROP,),
    "crop-flip": (CROP, FLIP),
}
