"""Draw example inputs with other values of the same kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from compressor.agreement.kinds import another, fill, fresh
from compressor.records import ExampleInputs


def other_inputs(given: ExampleInputs, *, more: bool = False, seed: int = 0) -> ExampleInputs:
    """Draw other inputs that a network accepts if it accepts the given ones.

    Where all of them are constant (zeros that only say the shape), nothing is known of the values,
    and new ones are drawn (`fill`).

    Args:
        given: The inputs to start from; not changed.
        more: Add one sample, in dimension 0 of every tensor.
        seed: Seed of the random draws.
    """
    generator = torch.Generator().manual_seed(seed)
    largest = map_inputs(given, _one_more) if more else given
    drawn = map_inputs(largest, lambda leaf: another(leaf, generator))
    if _are_equal(drawn, largest):
        return map_inputs(largest, lambda leaf: fill(leaf, generator))
    return drawn


def fresh_inputs(given: ExampleInputs, seed: int = 0) -> ExampleInputs:
    """Draw inputs of the same shapes, types, kinds and ranges with none of the given values."""
    generator = torch.Generator().manual_seed(seed)
    return map_inputs(given, lambda leaf: fresh(leaf, generator))


def map_inputs(inputs: ExampleInputs, change: Callable[[Tensor], Tensor]) -> ExampleInputs:
    """Return the inputs with every non-empty tensor of at least one dimension changed."""

    def on_tensors(leaf: Any) -> Any:
        return change(leaf) if isinstance(leaf, Tensor) and leaf.dim() and leaf.numel() else leaf

    args, kwargs = pytree.tree_map(on_tensors, (inputs.args, dict(inputs.kwargs)))
    return ExampleInputs(args, kwargs, inputs.origin)


def _one_more(leaf: Tensor) -> Tensor:
    return torch.cat([leaf, leaf[:1]])


def _are_equal(some: ExampleInputs, others: ExampleInputs) -> bool:
    pairs = zip(
        *(pytree.tree_leaves((x.args, dict(x.kwargs))) for x in (some, others)), strict=True
    )
    return all(torch.equal(a, b) for a, b in pairs if isinstance(a, Tensor))
