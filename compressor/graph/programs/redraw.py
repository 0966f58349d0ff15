"""Draw live weights for comparisons.

Library-initialised networks can compute a constant (zero heads, tiny layer scales): everything
agrees with everything there. Two forms of a network are then compared under weights drawn anew.
Those must not make the network chaotic either: right forms would differ by their rounding alone.
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


GAINS = (0.85, 0.7, 0.6, 0.5)
"""What matrices are multiplied by, in turn, where rounding alone moves the outputs far."""


def redraw_until_clear(
    module: torch.nn.Module, is_alive: Callable[[], bool], is_quiet: Callable[[], bool]
) -> None:
    """Overwrite a module's weights, in place, until its outputs tell one input from another.

    Values grow from layer to layer where no norm holds them (in ONNX files norms are folded into
    convolutions), until gates stand open or shut and rounding decides which; matrices are then
    drawn smaller. If nothing helps, the weights of the first gain stay.

    Args:
        module: The network.
        is_alive: Returns whether its outputs change with its inputs.
        is_quiet: Returns whether rounding leaves its outputs nearly as they are.
    """
    for seed in range(DRAWS):
        redraw_(drawable(module), seed)
        if is_alive():
            break
    else:
        return
    if is_quiet():
        return
    for gain in GAINS:
        redraw_(drawable(module), seed, gain)
        if is_alive() and is_quiet():
            return
    redraw_(drawable(module), seed)


def redraw_(tensors: Iterable[tuple[str, torch.Tensor]], seed: int = 0, gain: float = 1.0) -> None:
    """Overwrite parameters and running statistics with random values, in place, by name and shape.

    Matrices are He-normal, times the gain; norm weights, layer scales and running variances
    U(0.5, 1.5); biases and running means N(0, 0.1).
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in tensors:
            if tensor.is_floating_point() and tensor.numel():
                draw = _draw_for(name, tensor)
                tensor.copy_(draw(_squeeze(tensor), generator).view_as(tensor))
                if draw is _he_normal and gain != 1:
                    tensor.mul_(gain)


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
