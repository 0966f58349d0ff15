"""The CIFAR-10 ResNets of He et al. 2015 (section 4.2), and a command that compresses trained ones.

    python -m tools.cifar_resnet --data-root FOLDER [--depth 56] [--ratio 0.5] [--epochs 2]

FOLDER (or COMPRESSOR_DATA) holds cifar10_resnet56.safetensors, cifar10_train_1.npz ... _5.npz and
cifar10_test.npz. Every further option is handed to `compress`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import torch
from cyclopts import App, Parameter
from torch import nn
from torch.nn import functional

from compressor.cli import main as compress
from tools.options import DataRoot


class ZeroPaddedShortcut(nn.Module):
    """Option A of the paper: every second position, new channels zero; it has no parameters."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.before, self.after = before, after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        grown = width - before
        self.shortcut = ZeroPaddedShortcut(grown // 2, grown // 2) if grown else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(inner)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """6n+2 layers: three stages of n blocks with 16, 32 and 64 channels."""

    def __init__(self, depth: int, num_classes: int = 10) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks, 1)
        self.layer2 = self._stage(16, 32, blocks, 2)
        self.layer3 = self._stage(32, 64, blocks, 2)
        self.linear = nn.Linear(64, num_classes)

    @staticmethod
    def _stage(before: int, width: int, blocks: int, stride: int) -> nn.Sequential:
        first = BasicBlock(before, width, stride)
        return nn.Sequential(first, *(BasicBlock(width, width, 1) for _ in range(blocks - 1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(functional.adaptive_avg_pool2d(x, 1).flatten(1))


resnet8 = partial(CifarResNet, 8)
resnet20 = partial(CifarResNet, 20)
resnet32 = partial(CifarResNet, 32)
resnet44 = partial(CifarResNet, 44)
resnet56 = partial(CifarResNet, 56)


def example_inputs() -> torch.Tensor:
    """One image, [1, 3, 32, 32]."""
    return torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def arguments(depth: int, root: Path) -> list[str]:
    """Return what `compress` takes to find the trained network and its data in a folder."""
    files = [f"cifar10_train_{shard}.npz" for shard in range(1, 6)]
    return [
        f"{Path(__file__)}:resnet{depth}",
        *("--weights", str(root / f"cifar10_resnet{depth}.safetensors")),
        *("--data", *(str(root / name) for name in files)),
        *("--test", str(root / "cifar10_test.npz")),
    ]


app = App(help="Compress a trained CIFAR-10 ResNet; further options go to `compress`.")


@app.default
def command(
    *options: Annotated[str, Parameter(allow_leading_hyphen=True)],
    data_root: DataRoot,
    depth: int = 56,
    ratio: float = 0.5,
    epochs: int = 2,
) -> int:
    """Compress the trained network of this depth and report every step of its recovery."""
    return compress(
        [
            *arguments(depth, data_root),
            *("--ratio", str(ratio), "--epochs", str(epochs), "--augment", "crop-flip"),
            *("--batch-size", "128"),
            *options,
        ]
    )


if __name__ == "__main__":
    app()
