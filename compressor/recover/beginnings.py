"""Provide what a pruned network's training begins from, if not from the weights that were left."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from compressor.errors import CompressorError

_RESETS = ("reset_parameters", "_reset_parameters")


def reinitialise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Return a copy in which every layer begins as its class begins, as in training from scratch.

    A parameter whose owner has no way to reset it is drawn from a normal distribution with its own
    mean and deviation.

    Raises:
        CompressorError: The network is a program, whose layers are operators.
    """
    if isinstance(module, GraphModule):
        raise CompressorError(
            "a program's layers are operators, which do not say how their weights begin",
            consequence="nothing was re-initialised",
            next_step="give the network as a module: a factory, or a file with the whole module",
        )
    fresh = copy.deepcopy(module)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        reset: set[int] = set()
        for layer in fresh.modules():
            resets = [getattr(layer, name) for name in _RESETS if hasattr(layer, name)]
            for method in resets[:1]:
                method()
                reset |= {id(parameter) for parameter in layer.parameters()}
        for parameter in fresh.parameters():
            if id(parameter) not in reset and parameter.is_floating_point():
                parameter.copy_(_alike(parameter))
    return fresh


def _alike(tensor: Tensor) -> Tensor:
    spread = tensor.std(correction=0)
    return tensor.mean() + spread * torch.randn_like(tensor)
