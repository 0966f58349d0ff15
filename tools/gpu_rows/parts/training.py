"""ResNet-56 made smaller and fine-tuned, one method and seed after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from tools.cifar_resnet import CifarResNet
from tools.gpu_rows import places
from tools.gpu_rows.records import Row
from tools.gpu_rows.scale import Scale
from tools.training.data import Cifar, Images
from tools.training.run import Runner
from tools.training.trial import Trial
from tools.trials.networks import top1

EPOCHS = 120
METHODS = ("ours", "Torch-Pruning", "uniform L1")


def trials(epochs: int = EPOCHS) -> list[Trial]:
    """One seed of all methods at 2.1x, then further seeds, then 2.55x."""
    return [
        Trial("gpu", "ResNet-56", method, times, epochs, seed)
        for times in (2.1, 2.55)
        for seed in range(3)
        for method in METHODS
    ]


@dataclass(frozen=True)
class MadeUp(Cifar):
    """A few random images in CIFAR-10's place, and a small network that knows nothing of them."""

    @cached_property
    def _shuffled(self) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(256, 3, 32, 32, generator=generator), torch.arange(256) % 10

    @cached_property
    def train(self) -> Images:
        return Images(*self._shuffled)

    @cached_property
    def _test(self) -> tuple[Tensor, Tensor]:
        return self._shuffled

    def validation(self, module: nn.Module) -> float:
        return top1(*self._shuffled, module)["top1"]

    def network(self, name: str) -> nn.Module:
        torch.manual_seed(0)
        return CifarResNet(8).eval()


def rows(scale: Scale) -> Iterator[Row]:
    """None while a piece of the data is missing, which is said."""
    if not scale.is_dry and (missing := places.missing_data()):
        print(f"training waits for {', '.join(missing)}: further pieces of the pack bring them")
        return
    data = MadeUp(scale.out, "cpu") if scale.is_dry else Cifar(scale.data, scale.device)
    runner = Runner(data, scale.out)
    for trial in trials(1)[:2] if scale.is_dry else trials():
        yield Row("training", key_of(trial), partial(_trained, runner, trial))


def key_of(trial: Trial) -> dict[str, Any]:
    """Of a trial's row."""
    names = ("network", "method", "times", "epochs", "seed")
    return {name: getattr(trial, name) for name in names}


def _trained(runner: Runner, trial: Trial) -> Mapping[str, Any]:
    found = runner.run(trial)
    seconds = sorted(epoch["seconds"] for epoch in found["epochs"])
    return {
        **{name: value for name, value in found.items() if name not in ("where", "seconds")},
        "epoch_s": seconds[len(seconds) // 2],
    }
