"""A character model with fused attention, trained here on tiny Shakespeare once and kept."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from compressor.files.whole_file import write_whole

LENGTH, WIDTH, HEADS, LAYERS = 64, 128, 4, 4
STEPS, BATCH, RATE, DECAY = 2500, 24, 2e-3, 0.1
"""Of the training, some ten minutes on one core."""

PARTS = {"train": (0.0, 0.9), "validation": (0.9, 0.95), "test": (0.95, 1.0)}
"""Shares of the text, from where to where."""


class Attention(nn.Module):
    """Causal, with one linear layer for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        apart = self.qkv(x).view(batch, length, 3, self.heads, self.head_width)
        q, k, v = apart.permute(2, 0, 3, 1, 4).unbind(0)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = y.transpose(1, 2).reshape(batch, length, self.heads * self.head_width)
        return self.out(y)


class Block(nn.Module):
    """Attention and a two-layer perceptron, each behind a norm and added to the stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class CharacterModel(nn.Module):
    """Scores of the next character at every place."""

    def __init__(self, symbols: int) -> None:
        super().__init__()
        self.token = nn.Embedding(symbols, WIDTH)
        self.place = nn.Parameter(torch.zeros(LENGTH, WIDTH))
        self.blocks = nn.Sequential(*(Block(WIDTH, HEADS) for _ in range(LAYERS)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, symbols)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.token(ids) + self.place
        scores: Tensor = self.head(self.norm(self.blocks(x)))
        return scores


@cache
def characters(root: Path) -> tuple[Tensor, int]:
    """The text as numbers, and how many different ones there are."""
    text = (root / "tinyshakespeare.txt").read_text(encoding="utf-8")
    known = {symbol: number for number, symbol in enumerate(sorted(set(text)))}
    return torch.tensor([known[symbol] for symbol in text]), len(known)


def windows(root: Path, part: str) -> tuple[Tensor, Tensor]:
    """All windows of a part one after the other, [count, LENGTH], and what follows each place."""
    ids, _ = characters(root)
    begin, end = (int(share * len(ids)) for share in PARTS[part])
    count = (end - begin - 1) // LENGTH
    inputs, targets = (ids[begin + i : begin + i + count * LENGTH] for i in (0, 1))
    return inputs.view(count, LENGTH), targets.view(count, LENGTH)


def next_character_loss(module: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Mean, in nats."""
    with torch.inference_mode():
        total = sum(
            float(functional.cross_entropy(module(x).flatten(0, 1), y.flatten(), reduction="sum"))
            for x, y in zip(inputs.split(128), targets.split(128), strict=True)
        )
    return total / targets.numel()


def trained(root: Path, scratch: Path) -> CharacterModel:
    """In eval mode; trained if `scratch` does not have it from an earlier run."""
    torch.manual_seed(0)
    module = CharacterModel(characters(root)[1])
    file = scratch / f"shakespeare-{LAYERS}x{WIDTH}-{STEPS}.safetensors"
    if not file.exists():
        train_(module, *windows(root, "train"), steps=STEPS)
        scratch.mkdir(parents=True, exist_ok=True)
        with write_whole(file) as temporary:
            save_file(module.state_dict(), temporary)
    module.load_state_dict(load_file(file))
    return module.eval()


def train_(module: nn.Module, inputs: Tensor, targets: Tensor, *, steps: int) -> None:
    """AdamW, a warm-up and half a cosine, windows drawn anew for each step."""
    module.train()
    optimizer = torch.optim.AdamW(module.parameters(), RATE, weight_decay=DECAY, betas=(0.9, 0.99))
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        factor = min(1.0, (step + 1) / 100) * (1 + math.cos(math.pi * step / steps)) / 2
        for group in optimizer.param_groups:
            group["lr"] = RATE * factor
        some = torch.randint(len(inputs), (BATCH,), generator=generator)
        loss = functional.cross_entropy(module(inputs[some]).flatten(0, 1), targets[some].flatten())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
    module.eval()
