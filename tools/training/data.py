"""CIFAR-10 as this study splits it, and the networks that were trained on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from compressor.loading.data import Batches, Data, batches
from compressor.loading.data.collating import Stacked
from tools.training.own import trained_here
from tools.trials.networks import cifar, top1, trained_resnet

NETWORKS: Mapping[str, int] = {"ResNet-20": 20, "ResNet-56": 56}
VALIDATION = 5000
BATCH = 128
_SPLIT = 20151210
"""The seed of the split, the same in all trials."""


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Normalised images and labels, all of them in the memory of one device."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.labels[index]

    def __getitems__(self, indices: list[int] | Tensor) -> Stacked:
        chosen = torch.as_tensor(indices, device=self.images.device)
        return Stacked(self.images[chosen], self.labels[chosen])

    @property
    def nbytes(self) -> int:
        return self.images.nbytes

    def on(self, device: torch.device) -> Images:
        """The same, in that device's memory."""
        return Images(self.images.to(device), self.labels.to(device))


class Judged(Protocol):
    """Networks with data to train and to judge them by: numbers are per cent that are right."""

    device: str
    loss: Callable[[Any, Any], Tensor] | None
    """None: cross-entropy, with half of the weight on the original's outputs."""

    @property
    def train(self) -> Images: ...

    @property
    def calibration(self) -> Images: ...

    def epochs(self, seed: int) -> Batches: ...

    def validation(self, module: nn.Module) -> float: ...

    def test(self, module: nn.Module) -> float: ...

    def network(self, name: str) -> nn.Module: ...


@dataclass(frozen=True)
class Cifar:
    """45 000 images to train on, 5 000 to compare epochs on, 10 000 that decide nothing."""

    root: Path
    device: str
    loss: None = None

    @cached_property
    def _shuffled(self) -> tuple[Tensor, Tensor]:
        with ThreadPoolExecutor() as threads:
            parts = threads.map(lambda shard: cifar(self.root, f"train_{shard}"), range(1, 6))
            images, labels = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(_SPLIT))
        return images[order].to(self.device), labels[order].to(self.device)

    @cached_property
    def train(self) -> Images:
        images, labels = self._shuffled
        return Images(images[VALIDATION:], labels[VALIDATION:])

    @cached_property
    def calibration(self) -> Images:
        """The images that are trained on, where networks are scored and repaired."""
        return Images(self.train.images.cpu(), self.train.labels.cpu())

    def epochs(self, seed: int) -> Batches:
        """The training images, shifted and flipped at random."""
        data = Data("CIFAR-10", self.train, labelled=True, classes=10)
        return batches(data, BATCH, seed=seed, augment="crop-flip", drop_last=True)

    def validation(self, module: nn.Module) -> float:
        """Per cent right, in eval mode on the device."""
        images, labels = self._shuffled
        return top1(images[:VALIDATION], labels[:VALIDATION], module)["top1"]

    @cached_property
    def _test(self) -> tuple[Tensor, Tensor]:
        images, labels = cifar(self.root, "test")
        return images.to(self.device), labels.to(self.device)

    def test(self, module: nn.Module) -> float:
        """Per cent right; the module comes back to the CPU, in eval mode."""
        found = top1(*self._test, module.to(self.device).eval())["top1"]
        module.cpu()
        return found

    def network(self, name: str) -> nn.Module:
        return trained_resnet(NETWORKS[name], self.root)


@dataclass(frozen=True)
class Unseen(Cifar):
    """What a default is decided by: networks trained here on the 45 000, and in place of the test
    images the 5 000, which neither they nor their smaller forms saw."""

    @cached_property
    def _test(self) -> tuple[Tensor, Tensor]:
        images, labels = self._shuffled
        return images[:VALIDATION], labels[:VALIDATION]

    def network(self, name: str) -> nn.Module:
        return trained_here(NETWORKS[name], self.epochs(0))


DATA: Mapping[str, type[Cifar]] = {"cpu": Cifar, "gpu": Cifar, "decisions": Unseen}
"""By the study."""
