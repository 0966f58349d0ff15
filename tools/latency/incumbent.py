"""Torch-Pruning's choice: by the magnitude of groups, globally, its ratio bisected."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer

from compressor.graph.counting import count_macs
from compressor.graph.network import Network

CLOSE = 0.005
"""Of the MACs, either way, where widths are free; with rounding the nearest is taken."""


def _pruner(
    module: nn.Module, example: Tensor, ratio: float, round_to: int | None, **options: Any
) -> Any:
    return tp.pruner.BasePruner(
        module,
        example,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        pruning_ratio=ratio,
        max_pruning_ratio=0.9,
        round_to=round_to,
        **options,
    )


def pruned(
    module: nn.Module,
    example: Tensor,
    ratio: float,
    round_to: int | None,
    *,
    inside_blocks: bool = False,
) -> tuple[nn.Module, float]:
    """The network without about `ratio` of its MACs, and the share that is left; the last layer
    keeps its outputs, and what is no block's `conv1` if only they are pruned."""
    whole = count_macs(module, (example,), {})

    def smaller(share: float) -> tuple[nn.Module, float]:
        copied = copy.deepcopy(module).eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            options = {"ignored_layers": streams(copied)} if inside_blocks else _kept(copied)
            _pruner(copied, example, share, round_to, **options).step()
        if isinstance(copied, VisionTransformer):
            copied.hidden_dim = copied.conv_proj.out_channels
        return copied, count_macs(copied, (example,), {}) / whole

    return bisected(smaller, 1 - ratio)


def streams(module: nn.Module) -> list[nn.Module]:
    """The layers of a CIFAR ResNet that make a residual stream, and the last one."""
    return [
        layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear) and not name.endswith(".conv1")
    ]


def _kept(module: nn.Module) -> dict[str, Any]:
    """What is not pruned, and how many heads attentions have."""
    last = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1]
    heads = {
        layer: layer.num_heads
        for layer in module.modules()
        if isinstance(layer, nn.MultiheadAttention)
    }
    if not heads:
        return {"ignored_layers": [last]}
    return {
        "ignored_layers": [last],
        "num_heads": heads,
        "unwrapped_parameters": [
            (p, p.dim() - 1) for n, p in module.named_parameters() if n in _LOOSE
        ],
    }


_LOOSE = ("class_token", "encoder.pos_embedding")


def bisected(smaller: Callable[[float], tuple[Any, float]], left: float) -> tuple[Any, float]:
    """The nearest to the share that is to be left."""
    low, high = 0.0, 1.0
    best: tuple[Any, float] | None = None
    for _ in range(14):
        middle = (low + high) / 2
        found = smaller(middle)
        if best is None or abs(found[1] - left) < abs(best[1] - left):
            best = found
        if abs(found[1] - left) < CLOSE:
            break
        low, high = (middle, high) if found[1] > left else (low, middle)
    assert best is not None
    return best


def chosen(
    module: nn.Module, example: Tensor, network: Network, ratio: float, round_to: int | None
) -> dict[str, tuple[int, ...]]:
    """Torch-Pruning's choice in a CIFAR ResNet's blocks as kept channels of our groups."""
    whole = network.cost.macs()

    def keep(share: float) -> tuple[dict[str, tuple[int, ...]], float]:
        copied = copy.deepcopy(module).eval()
        names = {layer: name for name, layer in copied.named_modules()}
        found: dict[str, tuple[int, ...]] = {}
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            pruner = _pruner(copied, example, share, round_to, ignored_layers=streams(copied))
            for group in pruner.step(interactive=True):
                dependency, lost = group[0]
                layer = dependency.target.module
                kept = sorted(set(range(layer.out_channels)) - set(lost))
                found[f"{names[layer]}.weight:0"] = tuple(kept)
        sizes = network.sizes({name: len(kept) for name, kept in found.items()})
        return found, network.cost.macs(sizes) / whole

    kept: dict[str, tuple[int, ...]] = bisected(keep, 1 - ratio)[0]
    return kept
