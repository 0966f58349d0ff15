"""Put computations of weights back on a smaller network, where it then computes the same.

These are weight norm, whose length and direction any weight has, and masks, cut as the weight is.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, weight_norm

Cut = Mapping[int, Sequence[int]]
"""Dimension of a tensor -> the indices that are kept."""

Again = Callable[[nn.Module, Cut], Any]
"""A function that puts a computation back on a layer whose tensor was cut, in place."""


def weight_norm_hook(hook: Any, layer: nn.Module) -> Again:
    """Return what puts weight norm back as a hook, whose tensors torch takes from the weight."""
    name, dim = hook.name, hook.dim
    return lambda cut_layer, _: weight_norm(cut_layer, name, dim)


def pruning_mask(hook: Any, layer: nn.Module) -> Again:
    """Return what puts a pruning mask back, cut as its weight is."""
    name = hook._tensor_name
    mask = getattr(layer, f"{name}_mask").detach().clone()
    masked: Any = prune.custom_from_mask
    return lambda cut_layer, cut: masked(cut_layer, name, _cut(mask, cut))


def weight_norm_parametrisation(name: str, dim: int) -> Again:
    """Return what puts weight norm back as a parametrisation.

    torch computes length and direction from the weight.
    """
    return lambda cut_layer, _: parametrizations.weight_norm(cut_layer, name, dim)


def put_back(layer: nn.Module, name: str, again: Again, cut: Cut) -> None:
    """Let a layer compute its tensor again, in place; its sources learn if the tensor did."""
    before = {id(parameter) for parameter in layer.parameters()}
    learns = getattr(layer, name).requires_grad
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch prefers the parametrisation to the hook
        again(layer, cut)
    for parameter in layer.parameters():
        if id(parameter) not in before:
            parameter.requires_grad_(learns)


def _cut(mask: Tensor, cut: Cut) -> Tensor:
    for dim, kept in cut.items():
        mask = mask.index_select(dim, torch.tensor(kept))
    return mask
