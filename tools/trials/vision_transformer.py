"""A small Vision Transformer, trained on CIFAR-10 once and kept in torch's cache."""

from __future__ import annotations

import math
import time
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchvision.models.vision_transformer import VisionTransformer

MINUTES = 12.0
BATCH, RATE, DECAY = 128, 1e-3, 0.05
build = partial(
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


def trained_transformer(train: TensorDataset) -> nn.Module:
    """Trained for `MINUTES` on the CPU, unless torch's cache has it from an earlier run."""
    cache = Path(torch.hub.get_dir()) / "compressor"
    cache.mkdir(parents=True, exist_ok=True)
    file = cache / f"cifar10_vision_transformer_{MINUTES:g}min.safetensors"
    torch.manual_seed(0)
    module: nn.Module = build()
    if not file.exists():
        train_(module, *train.tensors, minutes=MINUTES)
        save_file(module.state_dict(), file)
    module.load_state_dict(load_file(file))
    return module.eval()


def train_(module: nn.Module, images: Tensor, labels: Tensor, *, minutes: float) -> None:
    """AdamW, a warm-up and a cosine over the time that there is, flips and shifts by up to 4."""
    module.train()
    optimizer = torch.optim.AdamW(module.parameters(), RATE, weight_decay=DECAY)
    begin, step = time.perf_counter(), 0
    while (passed := (time.perf_counter() - begin) / (60 * minutes)) < 1:
        factor = min(1.0, (step + 1) / 100) * (1 + math.cos(math.pi * passed)) / 2
        for group in optimizer.param_groups:
            group["lr"] = RATE * factor
        some = torch.randint(len(images), (BATCH,))
        loss = nn.functional.cross_entropy(
            module(shifted(images[some])), labels[some], label_smoothing=0.1
        )
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        step += 1
    module.eval()


def shifted(images: Tensor) -> Tensor:
    """All of a batch shifted alike, and flipped or not."""
    up, left = torch.randint(9, (2,)).tolist()
    padded = nn.functional.pad(images, (4, 4, 4, 4))[..., up : up + 32, left : left + 32]
    return padded.flip(3) if torch.rand(()) < 0.5 else padded
