"""Measure what rounding does to a network's outputs, on the network itself."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import nn

from compressor.agreement.tolerances import FLOAT32, Tolerance
from compressor.on_demand import read_all

Found = TypeVar("Found")
DRAWS = 3


def shake(
    module: nn.Module, run: Callable[[nn.Module], Found], tolerance: Tolerance = FLOAT32
) -> Sequence[Found]:
    """Run copies of the module whose parameters differ from its own in their last bits.

    In float32 a parameter changes by up to 8 units in the last place, which is a little more than
    sums in another order do.

    Args:
        module: The network; not changed.
        run: What to do with each copy; its result is returned per copy.
        tolerance: The tolerance of the type whose rounding is imitated.

    Source: Monte Carlo arithmetic, D. S. Parker, 1997.
    """
    step, generator = tolerance.rounding / 4, torch.Generator().manual_seed(0)
    moved, results = copy.deepcopy(module), []
    read_all(moved)
    for _ in range(DRAWS):
        with torch.no_grad():
            for own, parameter in zip(module.parameters(), moved.parameters(), strict=True):
                if own.is_floating_point() or own.is_complex():
                    noise = 2 * torch.rand(own.shape, generator=generator) - 1
                    parameter.copy_(own * (1 + step * noise.to(own.device, own.real.dtype)))
        results.append(run(moved))
    return results
