"""Build something real to compress: a residual network and scikit-learn's handwritten digits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from compressor.loading.data import Data, batches
from compressor.options import Options
from compressor.recover import Hooks, Recipe, fine_tune
from compressor.watch import Tick

TRAINING = 1300
EPOCHS, PEAK_LR, BATCH_SIZE = 12, 0.1, 64
OPTIONS = Options(ratio=0.5, round_to=4, epochs=6, lr=0.03)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread in the block.

    Layers this small lose more by waiting for a second thread than they gain.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Block(nn.Module):
    """A residual block: two convolutions and a shortcut; stride 2 halves height and width."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class DigitNet(nn.Module):
    """A residual network for grey 8x8 digits, (N, 1, 8, 8) -> (N, 10); 96 thousand parameters."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.blocks = nn.Sequential(
            Block(width, width),
            Block(width, width),
            Block(width, 2 * width, stride=2),
            Block(2 * width, 2 * width),
        )
        self.head = nn.Linear(2 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.blocks(self.stem(x)).mean((2, 3))
        scores: Tensor = self.head(pooled)
        return scores


def digits() -> tuple[Data, Data]:
    """Load the 1797 digits as training data and test data; the split is always the same.

    Pixels are between -1 and 1.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32).unsqueeze(1) / 8 - 1
    labels = torch.tensor(bunch.target, dtype=torch.int64)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))

    def part(name: str, indices: Tensor) -> Data:
        return Data(name, TensorDataset(images[indices], labels[indices]), True, 10)

    return part("digits", order[:TRAINING]), part("digits, test part", order[TRAINING:])


def train_network(train: Data, *, seed: int, tick: Tick) -> DigitNet:
    """Train a network from scratch on the digits, and return it in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = DigitNet()
    fine_tune(
        network,
        batches(train, BATCH_SIZE, seed=seed, drop_last=True),
        Recipe(EPOCHS, lr=PEAK_LR, seed=seed, precision="fp32"),  # alike on every machine
        hooks=Hooks(progress=tick),
    )
    return network
