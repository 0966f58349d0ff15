"""The trained networks of the trials, with data to calibrate and to judge them by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from tools.cifar_resnet import CifarResNet
from tools.trials.vision_transformer import trained_transformer
from tools.zoo.trained import MEAN, STD, next_token_loss
from tools.zoo.trained import NETWORKS as TRAINED

DECISIONS = 5
"""The shard of CIFAR-10's training data that is kept for decisions."""


@dataclass(frozen=True)
class Measured:
    """A trained network; `judge` gives named numbers of a network that takes its place."""

    module: nn.Module
    example: Tensor
    train: Dataset[Any]
    judge: Callable[[nn.Module], dict[str, float]]
    first: str
    """The number that tables show."""


@cache
def cifar(root: Path, name: str) -> tuple[Tensor, Tensor]:
    """Normalised images and labels of one file."""
    stored = np.load(root / f"cifar10_{name}.npz")
    images = torch.from_numpy(stored["images"]).permute(0, 3, 1, 2) / 255
    return (images - MEAN) / STD, torch.from_numpy(stored["labels"].astype(np.int64))


@cache
def _cifar_training(root: Path) -> TensorDataset:
    parts = [cifar(root, f"train_{shard}") for shard in range(1, DECISIONS)]
    return TensorDataset(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def top1(images: Tensor, labels: Tensor, module: nn.Module) -> dict[str, float]:
    """Per cent that are right."""
    with torch.inference_mode():
        right = sum(
            int((module(images[i : i + 250]).argmax(1) == labels[i : i + 250]).sum())
            for i in range(0, len(labels), 250)
        )
    return {"top1": 100 * right / len(labels)}


def _on_cifar(module: nn.Module, root: Path, *, decide: bool) -> Measured:
    images, labels = cifar(root, f"train_{DECISIONS}" if decide else "test")
    judge = partial(top1, images, labels)
    return Measured(module.eval(), images[:2], _cifar_training(root), judge, "top1")


def trained_resnet(depth: int, root: Path) -> nn.Module:
    """In eval mode."""
    stored = load_file(root / f"cifar10_resnet{depth}.safetensors")
    module = CifarResNet(depth)
    module.load_state_dict({name.removeprefix("module."): t for name, t in stored.items()})
    return module.eval()


def _resnet(depth: int, root: Path, *, decide: bool) -> Measured:
    return _on_cifar(trained_resnet(depth, root), root, decide=decide)


def _transformer(root: Path, *, decide: bool) -> Measured:
    return _on_cifar(trained_transformer(_cifar_training(root)), root, decide=decide)


def divergence(reference: Tensor, outputs: Tensor) -> float:
    """Mean Kullback-Leibler divergence from the original's distribution, in nats."""
    p, q = reference.log_softmax(-1), outputs.detach().log_softmax(-1)
    return float((p.exp() * (p - q)).sum(-1).mean())


def _thirds(
    name: str, root: Path, *, decide: bool
) -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """A network of the zoo, and its samples: a third is calibrated on, a third is kept for
    decisions, a third for the result; here the first and one of the others."""
    trained = TRAINED[name]
    module = trained.factory().eval()
    module.load_state_dict(load_file(root / trained.weights))
    inputs, targets = (torch.cat(t) for t in zip(*trained.batches(root), strict=True))
    part = torch.arange(len(inputs)) % 3
    return module, [
        (inputs[part == number], targets[part == number]) for number in (0, 1 if decide else 2)
    ]


def _mobilenet(root: Path, *, decide: bool) -> Measured:
    module, (train, (images, _)) = _thirds("mobilenet_v2", root, decide=decide)
    with torch.inference_mode():
        reference = module(images)

    def judge(smaller: nn.Module) -> dict[str, float]:
        with torch.inference_mode():
            outputs = smaller(images)
        same = outputs.argmax(1) == reference.argmax(1)
        return {
            "divergence": divergence(reference, outputs),
            "agreement": 100 * float(same.double().mean()),
        }

    return Measured(module, images[:2], TensorDataset(*train), judge, "divergence")


def _stories(root: Path, *, decide: bool) -> Measured:
    module, (train, (ids, following)) = _thirds("stories260k", root, decide=decide)

    def judge(smaller: nn.Module) -> dict[str, float]:
        with torch.inference_mode():
            return {"loss": float(next_token_loss(smaller(ids), following))}

    return Measured(module, ids[:2], TensorDataset(*train), judge, "loss")


NETWORKS: Mapping[str, Callable[..., Measured]] = {
    "ResNet-56": partial(_resnet, 56),
    "ResNet-20": partial(_resnet, 20),
    "MobileNet-V2": _mobilenet,
    "stories260k": _stories,
    "Vision Transformer": _transformer,
}
