"""The networks that are timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.utils.data import Dataset

from compressor.graph.programs.redraw import drawable, redraw_
from tools.trials.networks import NETWORKS as TRAINED

CALIBRATION = 1024


@dataclass(frozen=True)
class Timed:
    """A network; `train` are images that it may be calibrated on, where there are any.

    `streams_break`: Torch-Pruning's network no longer runs if its residual streams are pruned (the
    zero-padded shortcut), so that it prunes inside the blocks alone.
    """

    module: nn.Module
    example: Tensor
    train: Dataset[Any] | None = None
    streams_break: bool = False


def _redrawn(factory: Callable[..., nn.Module], root: Path) -> Timed:
    """With weights drawn anew: no output is constant, so that comparisons mean something."""
    module = factory(weights=None).eval()
    redraw_(drawable(module), seed=0)
    generator = torch.Generator().manual_seed(0)
    return Timed(module, torch.randn(1, 3, 224, 224, generator=generator))


def _trained(name: str, root: Path) -> Timed:
    measured = TRAINED[name](root, decide=False)
    return Timed(measured.module, measured.example[:1], measured.train, streams_break=True)


NETWORKS: Mapping[str, Callable[[Path], Timed]] = {
    "ResNet-56": partial(_trained, "ResNet-56"),
    "resnet50": partial(_redrawn, torchvision.models.resnet50),
    "mobilenet_v2": partial(_redrawn, torchvision.models.mobilenet_v2),
    "vit_b_16": partial(_redrawn, torchvision.models.vit_b_16),
}
