"""Draw live weights for comparisons.

Library-initialised networks can compute a constant (zero heads, tiny layer scales): everything
agrees with everything there. Two forms of a network are then compared under weights drawn anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import torch

Draw = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


def _he_normal(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    fan_in = max(1, tensor[0].numel())
    return torch.randn(tensor.shape, generator=generator) * math.sqrt(2 / fan_in)


def _around_one(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(tensor.shape, generator=generator) + 0.5


def _around_zero(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(tensor.shape, generator=generator) * 0.1


BY_SUFFIX: Mapping[str, Draw] = {
    "bias": _around_zero,
    "running_mean": _around_zero,
    "running_var": _around_one,
}


DRAWS = 8
"""How often weights are drawn anew at most until outputs change: a single number or an argmax
may not change at once."""


def redraw_(tensors: Iterable[tuple[str, torch.Tensor]], seed: int = 0) -> None:
    """Overwrite parameters and running statistics with random values, in place, by name and shape.

    Matrices are He-normal; norm weights, layer scales and running variances U(0.5, 1.5); biases and
    running means N(0, 0.1).
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in tensors:
            if tensor.is_floating_point() and tensor.numel():
                tensor.copy_(_draw_for(name, tensor)(_squeeze(tensor), generator).view_as(tensor))


def drawable(module: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Return the parameters and running statistics of a module with their names, tied ones once."""
    statistics = [(n, b) for n, b in module.named_buffers() if n.rpartition(".")[2] in BY_SUFFIX]
    return [*module.named_parameters(), *statistics]


def _squeeze(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor without leading ones in its shape."""
    # a token of shape [1, 1, c] counts as a vector
    while tensor.dim() > 1 and tensor.shape[0] == 1:
        tensor = tensor[0]
    return tensor


def _draw_for(name: str, tensor: torch.Tensor) -> Draw:
    by_suffix = BY_SUFFIX.get(name.rpartition(".")[2])
    is_vector = tensor.numel() == max(tensor.shape, default=1)
    return by_suffix or (_around_one if is_vector else _he_normal)
