"""What networks of this comparison are trained on and judged by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from compressor.loading.data import Batches, Data, batches
from tools.peers.shakespeare import trained, windows
from tools.training.data import Cifar, Images, Judged
from tools.zoo.trained import NETWORKS as TRAINED

SHARE = 3
"""Of the photos, every third is trained on, the others judge."""

SMALL_BATCH, BATCH = 16, 32


def _batches(name: str, train: Images, size: int, seed: int) -> Batches:
    return batches(Data(name, train, labelled=True, classes=None), size, seed=seed, drop_last=True)


def _right(module: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Per cent, over the last dimension of the outputs; the module in eval mode."""
    module.eval()
    with torch.inference_mode():
        hits = sum(
            int((module(x).argmax(-1) == y).sum())
            for x, y in zip(inputs.split(64), targets.split(64), strict=True)
        )
    return 100 * hits / targets.numel()


@dataclass(frozen=True)
class Photos:
    """125 photos: a third is trained on, which is very little, the rest is test data."""

    root: Path
    name: str
    device: str = "cpu"
    loss: None = None

    @cached_property
    def _all(self) -> tuple[Tensor, Tensor]:
        images, labels = zip(*TRAINED[self.name].batches(self.root), strict=True)
        return torch.cat(images), torch.cat(labels)

    @cached_property
    def train(self) -> Images:
        return Images(*(tensor[::SHARE] for tensor in self._all))

    @property
    def calibration(self) -> Images:
        return self.train

    def epochs(self, seed: int) -> Batches:
        return _batches("photos", self.train, SMALL_BATCH, seed)

    def validation(self, module: nn.Module) -> float:
        """On what is trained on: there is no more."""
        return _right(module, self.train.images, self.train.labels)

    def test(self, module: nn.Module) -> float:
        rest = torch.arange(len(self._all[0])) % SHARE != 0
        return _right(module, *(tensor[rest] for tensor in self._all))

    def network(self, name: str) -> nn.Module:
        trained = TRAINED[self.name]
        module = trained.factory()
        stored = load_file(self.root / trained.weights)
        module.load_state_dict({key.removeprefix("module."): t for key, t in stored.items()})
        return module.eval()


def _next_character(outputs: Any, targets: Any) -> Tensor:
    return functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())


@dataclass(frozen=True)
class Shakespeare:
    """Characters of a play: nine tenths to train on, a twentieth to compare epochs on, and one that
    decides nothing."""

    root: Path
    scratch: Path
    device: str = "cpu"
    loss: Callable[[Any, Any], Tensor] = _next_character

    @cached_property
    def train(self) -> Images:
        return Images(*windows(self.root, "train"))

    @property
    def calibration(self) -> Images:
        return self.train

    def epochs(self, seed: int) -> Batches:
        return _batches("tiny Shakespeare", self.train, BATCH, seed)

    def validation(self, module: nn.Module) -> float:
        return _right(module, *windows(self.root, "validation"))

    def test(self, module: nn.Module) -> float:
        return _right(module, *windows(self.root, "test"))

    def network(self, name: str) -> nn.Module:
        return trained(self.root, self.scratch)


DATA: Mapping[str, Callable[[Path, Path], Judged]] = {
    "MobileNet-V1": lambda root, scratch: Photos(root, "mobilenet_v1"),
    "MobileNet-V2": lambda root, scratch: Photos(root, "mobilenet_v2"),
    "character GPT": Shakespeare,
    "ResNet-20": lambda root, scratch: Cifar(root, "cpu"),
    "ResNet-56": lambda root, scratch: Cifar(root, "cpu"),
}
"""By network, from the folders of data and of what is trained here."""
