"""Tiny networks and files for checks of the whole command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from compressor.files.folder import files_of_a_result
from compressor.files.format_table import FORMATS, ONNX, PROGRAM

CLASSES, CHANNELS, SIDE = 4, 3, 8


def sequential(seed: int = 0) -> nn.Sequential:
    """Made of torch.nn's classes alone, so that its pickle needs no trust."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(CHANNELS, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, CLASSES),
    )


class TinyNet(nn.Module):
    """A class of one's own, with a residual sum."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(CHANNELS, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.inner = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = x + torch.relu(self.inner(x))
        scores: Tensor = self.head(x.mean((2, 3)))
        return scores


class HardCoded(TinyNet):
    """Its forward spells a width that no attribute holds: the class cannot follow."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        scores: Tensor = self.head(x.view(-1, 8, SIDE * SIDE).mean(2))
        return scores


def inputs(samples: int = 1, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, CHANNELS, SIDE, SIDE, generator=generator)


def write_samples(
    path: Path, samples: int = 64, *, classes: int = CLASSES, side: int = SIDE
) -> Path:
    """An .npz whose classes differ by colour and so can be learnt."""
    rng = np.random.default_rng(0)
    labels = np.arange(samples) % classes
    images = rng.integers(0, 60, (samples, side, side, CHANNELS))
    for channel in range(CHANNELS):
        images[..., channel] += ((labels + 1) * 40 * (channel + 1) % 190)[:, None, None]
    np.savez(path, images=images.astype(np.uint8), labels=labels)
    return path


def write_model(path: Path, network: nn.Module | None = None) -> Path:
    torch.save(network or sequential(), path)
    return path


_OTHERS = (row for name, row in FORMATS.items() if name not in (ONNX, PROGRAM))
_LATER = {"model.onnx.data", "training.svg", "exports.json"}.union(*(r.files for r in _OTHERS))
RESULT_FILES = sorted(
    name for name in files_of_a_result() if name not in _LATER and "*" not in name
)
"""What the folder of every result in the usual formats holds."""


def names_in(folder: Path) -> Sequence[str]:
    return sorted(entry.name for entry in folder.iterdir())


BRIEFLY_TIMED = """\
import sys
from compressor.cli import main
from compressor.run import footprints
footprints.LATENCY_SECONDS = 0.05
sys.exit(main(sys.argv[1:]))
"""
"""The command as a script whose networks are timed for a moment only."""
