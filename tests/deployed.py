"""Networks that the formats of other runtimes are tested on."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compressor
from compressor import extras
from compressor.files.format_table import FORMATS
from compressor.graph.programs.redraw import drawable, redraw_

ZOO = (
    *("resnet50", "mobilenet_v2", "shufflenet_v2_x1_0", "densenet121", "googlenet"),
    *("efficientnet_b0", "regnet_y_400mf", "convnext_tiny", "squeezenet1_1", "mnasnet1_0"),
    *("vit_b_16", "swin_t"),
)


class Convolutions(nn.Module):
    """Depthwise, grouped and transposed convolutions around a residual addition."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.norm = nn.BatchNorm2d(16)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.last = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        x = (x + self.norm(self.grouped(self.depthwise(x)))).relu()
        return self.last(self.up(x).mean((2, 3)))


class Attention(nn.Module):
    """Token ids through an embedding, attention and a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 32)
        self.attend = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0)
        self.read = nn.LSTM(32, 24, batch_first=True)
        self.last = nn.Linear(24, 6)

    def forward(self, ids: Tensor) -> Tensor:
        found, _ = self.read(self.attend(self.embed(ids)))
        return self.last(found[:, -1])


def pixels() -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def ids() -> Tensor:
    return torch.arange(12).view(2, 6)


def halved(module: nn.Module, example: Tensor, **options: Any) -> compressor.Result:
    """Compress a network whose weights are drawn anew."""
    torch.manual_seed(0)
    redraw_(drawable(module.eval()), seed=0)
    return compressor.compress(module, example, **{"ratio": 0.5, "round_to": 1, **options})


def has(name: str) -> bool:
    """Whether the packages are there that a format takes."""
    return all(find_spec(module) is not None for module in FORMATS[name].needs)


def installed(name: str) -> Any:
    """Mark a test that takes a format's packages."""
    extra = extras.EXTRAS[FORMATS[name].needs[0]]
    return pytest.mark.skipif(not has(name), reason=f"the extra {extra} is not installed")
