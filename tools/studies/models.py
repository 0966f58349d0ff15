"""Two small transformers that are trained here once, and kept in torch's cache."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.vision_transformer import VisionTransformer

from compressor.files.whole_file import write_whole

LENGTH = 64
"""Characters that the character model looks back on."""

vision_transformer = partial(
    VisionTransformer,
    image_size=32,
    patch_size=4,
    num_layers=4,
    num_heads=4,
    hidden_dim=96,
    mlp_dim=192,
    num_classes=10,
)
"""0.3 million parameters, 64 patches."""


class Attention(nn.Module):
    """Causal attention with one linear layer for queries, keys and values."""

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
    """Characters [batch, LENGTH] to scores of the next one, [batch, symbols, LENGTH]: classes come
    first after the batch, as cross-entropy and top-1 accuracy take them."""

    def __init__(self, symbols: int, width: int = 128, heads: int = 4, layers: int = 4) -> None:
        super().__init__()
        self.token = nn.Embedding(symbols, width)
        self.place = nn.Parameter(torch.zeros(LENGTH, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, symbols)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, ids: Tensor) -> Tensor:
        scores: Tensor = self.head(self.norm(self.blocks(self.token(ids) + self.place)))
        return scores.transpose(1, 2)


Draw = Callable[[torch.Generator], tuple[Tensor, Tensor]]


def trained_here(name: str, module: nn.Module, draw: Draw, steps: int) -> nn.Module:
    """Return the module in eval mode, trained if torch's cache does not have its weights.

    Args:
        name: Of the file in the cache.
        module: Changed in place.
        draw: Draws a batch of inputs and targets.
        steps: How many batches are learnt from.
    """
    file = Path(torch.hub.get_dir()) / "compressor" / f"{name}-{steps}.safetensors"
    if not file.exists():
        train(module, draw, steps)
        file.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(file) as temporary:
            save_file(module.state_dict(), temporary)
    module.load_state_dict(load_file(file))
    return module.eval()


def train(module: nn.Module, draw: Draw, steps: int, rate: float = 2e-3) -> None:
    """Train in place by AdamW, with a warm-up and half a cosine."""
    module.train()
    optimizer = torch.optim.AdamW(module.parameters(), rate, weight_decay=0.1, betas=(0.9, 0.99))
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        factor = min(1.0, (step + 1) / 100) * (1 + math.cos(math.pi * step / steps)) / 2
        for group in optimizer.param_groups:
            group["lr"] = rate * factor
        inputs, targets = draw(generator)
        loss = functional.cross_entropy(module(inputs), targets)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
    module.eval()
