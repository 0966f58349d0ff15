"""Networks put together at random from pieces that real networks are made of.

A recipe is a list of `(piece, a, b)`; any numbers make a valid network, so that hypothesis can
shrink a failing one to its core.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

SIDE = 3
WIDTHS = (2, 3, 4, 6, 8)
Recipe = list[tuple[str, int, int]]
Layers = nn.ModuleDict
Make = Callable[[int, int, int], nn.Module]


class Attention(nn.Module):
    """Self-attention over the positions; fused projection, `heads` heads of width 2."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(channels, 6 * heads), nn.Linear(2 * heads, channels)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).view(x.shape[0], -1, 3, self.heads, 2).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2)).transpose(1, 2).unflatten(2, x.shape[2:])


class Recurrent(nn.Module):
    """An LSTM along the positions."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.lstm, self.out = (
            nn.LSTM(channels, hidden, batch_first=True),
            nn.Linear(hidden, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        states = self.lstm(x.flatten(2).transpose(1, 2))[0]
        return self.out(states).transpose(1, 2).unflatten(2, x.shape[2:])


class Gate(nn.Module):
    """Squeeze and excite."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(channels, inner), nn.Linear(inner, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.b(torch.relu(self.a(x.mean((2, 3))))))
        return x * gate[:, :, None, None]


def _divisor(number: int, a: int) -> int:
    found = [d for d in range(1, number + 1) if number % d == 0]
    return found[a % len(found)]


def _conv(channels: int, a: int, b: int) -> nn.Module:
    groups = _divisor(channels, b)
    return nn.Conv2d(
        channels, groups * WIDTHS[a % 3], 1 + 2 * (a % 2), padding=a % 2, groups=groups
    )


def _shuffled(x: Tensor, a: int) -> Tensor:
    groups = _divisor(x.shape[1], a)
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


def _split(x: Tensor, a: int) -> list[Tensor]:
    """Two uneven pieces, of a tensor with more than one channel."""
    channels = x.shape[1]
    if channels == 1:
        return [x]
    first = 1 + a % (channels - 1)
    return list(x.split([first, channels - first], 1))


LAYERS: dict[str, Make] = {
    "conv": _conv,
    "depthwise": lambda c, a, b: nn.Conv2d(c, c * (1 + a % 2), 3, padding=1, groups=c),
    "batch_norm": lambda c, a, b: nn.BatchNorm2d(c),
    "group_norm": lambda c, a, b: nn.GroupNorm(_divisor(c, a), c),
    "attention": lambda c, a, b: Attention(c, 1 + a % 3),
    "recurrent": lambda c, a, b: Recurrent(c, 2 + a % 3),
    "gate": lambda c, a, b: Gate(c, 2 + a % 3),
    "linear": lambda c, a, b: nn.Conv2d(c, WIDTHS[a % 5], 1),
}
"""Pieces with weights: (channels, a, b) -> layer, [N, channels, S, S] -> [N, any, S, S]."""

FREE: dict[str, Callable[[Tensor, int, int], list[Tensor]]] = {
    "relu": lambda x, a, b: [torch.relu(x)],
    "gelu": lambda x, a, b: [functional.gelu(x)],
    "glu": lambda x, a, b: [functional.glu(x, 1)] if x.shape[1] % 2 == 0 else [x],
    "chunk": lambda x, a, b: list(x.chunk(2, 1)),
    "split": lambda x, a, b: _split(x, a),
    "slice": lambda x, a, b: [x[:, a % x.shape[1] :]],
    "pad": lambda x, a, b: [functional.pad(x, (0, 0, 0, 0, a % 3, b % 3))],
    "shuffle": lambda x, a, b: [_shuffled(x, a)],
    "scale": lambda x, a, b: [x * 0.5 + x],
}
"""Pieces without weights: one tensor in, one or two out."""

JOINS = ("add", "cat", "multiply")
PIECES = (*LAYERS, *FREE, *JOINS)

recipes: st.SearchStrategy[Recipe] = st.lists(
    st.tuples(st.sampled_from(PIECES), st.integers(0, 30), st.integers(0, 30)),
    min_size=2,
    max_size=9,
)


class RandomNetwork(nn.Module):
    """Works on a pool of tensors [N, ?, S, S]; each piece takes some of them and adds its results.
    All that is left at the end is joined, pooled and classified."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = [("conv", 2, 0), *recipe]
        self.layers: Layers = Layers()
        self.building = True
        joined = self._run(torch.zeros(1, 2, SIDE, SIDE))
        self.head = nn.Linear(joined.shape[1], 3)
        self.building = False

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self._run(x).mean((2, 3)))

    def _run(self, x: Tensor) -> Tensor:
        pool = [x]
        for step, (piece, a, b) in enumerate(self.recipe):
            at = (a + b) % len(pool)
            if piece in JOINS:
                pool[at] = self._joined(piece, pool[at], pool[b % len(pool)], f"{step}")
            elif piece in LAYERS:
                pool[at] = self._layer(f"{step}", LAYERS[piece], pool[at], a, b)
            else:
                pool[at : at + 1] = FREE[piece](pool[at], a, b)
        return torch.cat(pool, 1)

    def _layer(self, name: str, make: Make, x: Tensor, a: int, b: int) -> Tensor:
        if self.building:
            self.layers[name] = make(x.shape[1], a, b)
        out: Tensor = self.layers[name](x)
        return out

    def _joined(self, piece: str, x: Tensor, y: Tensor, name: str) -> Tensor:
        if piece == "cat":
            return torch.cat([x, y], 1)
        fits: Any = lambda c, a, b: nn.Conv2d(c, x.shape[1], 1)  # noqa: E731
        y = y if y.shape[1] == x.shape[1] else self._layer(name, fits, y, 0, 0)
        return x + y if piece == "add" else x * y
