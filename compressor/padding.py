"""Know which positions of a batch are padding, by the mask that the network is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from compressor.calls import Call

MASK = "attention_mask"
"""The mask of samples that have none, where a network takes it: 1 at all of their positions."""

MASKS: Mapping[str, bool] = {
    MASK: True,
    "key_padding_mask": False,
    "src_key_padding_mask": False,
}
"""Name of an input, [samples, positions] of integers or booleans -> whether what is true of it are
the positions that are no padding (the names of transformers and of torch.nn)."""


def counted_of(call: Call) -> Tensor | None:
    """Return which positions are no padding, [samples, positions] bool; None where no input says.

    Inputs are known by their names in the network's forward, or in the dict that it takes.
    """
    given = dict(zip(call.names, call.args, strict=False)) | dict(call.kwargs)
    for value in call.args:
        given |= value if isinstance(value, Mapping) else {}
    for name, is_real in MASKS.items():
        mask = given.get(name)
        if isinstance(mask, Tensor) and mask.ndim == 2 and not mask.is_floating_point():
            return mask.bool() if is_real else ~mask.bool()
    return None


def is_mask(name: str, value: Any) -> bool:
    """Return whether an input of a sample says which of its positions there are.

    It is one of `MASKS`, or called a mask in some other way: what such a one has at padded
    positions can be told, but not which of a batch's positions these are.
    """
    return "mask" in name.lower() and isinstance(value, Tensor) and value.ndim > 0


def absent_value(name: str, mask: Tensor) -> float:
    """Return what a mask has where nothing is: the opposite of what it has where something is.

    Args:
        name: What the input is called.
        mask: That of one sample, of which more is there than not.
    """
    if mask.is_floating_point() and not (mask > 0).any():
        return torch.finfo(mask.dtype).min  # added to scores
    if name in MASKS:
        return float(not MASKS[name])
    is_set = mask.bool()
    if not is_set.any():
        return 1.0
    # some masks are set where padding is: their name says so
    return float("pad" in name.lower() and not is_set.all())


def blank_padding(tensor: Tensor, counted: Tensor | None) -> Tensor:
    """Return the tensor with zeros at padded positions, if it has positions.

    Args:
        tensor: Positions are the second of its three dimensions or more.
        counted: What `counted_of` returns.
    """
    if counted is None or not has_positions(tensor, counted):
        return tensor
    inner = [1] * (tensor.ndim - 2)
    return tensor.masked_fill(~counted.view(*counted.shape, *inner).to(tensor.device), 0)


def has_positions(tensor: Tensor, counted: Tensor) -> bool:
    """Return whether a tensor is [samples, positions, ...], with something at each position.

    Of two dimensions it is taken for an embedding, whose size may be the positions' by chance.
    """
    return tensor.ndim > 2 and tensor.shape[:2] == counted.shape


def counted_targets(target: Any, counted: Tensor | None, ignored: int) -> Any:
    """Return classes of positions with `ignored` at padded ones; other targets as they are."""
    is_of_positions = (
        counted is not None
        and isinstance(target, Tensor)
        and target.shape == counted.shape
        and not target.is_floating_point()
    )
    if counted is None or not is_of_positions:
        return target
    return target.masked_fill(~counted.to(target.device), ignored)


def counted_share(tensor: Tensor, counted: Tensor | None) -> Tensor | float:
    """Return the share of a tensor's values that are at no padded position."""
    if counted is None or not has_positions(tensor, counted):
        return 1.0
    return counted.to(tensor).mean().clamp(min=1 / counted.numel())


def counted_rows(grid: Sequence[int], counted: Tensor | None) -> Tensor | None:
    """Return the numbers of a grid's rows that are no padding, ascending; None where all count.

    Args:
        grid: Sizes of the dimensions that rows go through in row-major order: [samples, positions,
            ...], or [samples * positions].
        counted: What `counted_of` returns.
    """
    if counted is None or counted.all():
        return None
    if tuple(grid[:2]) == tuple(counted.shape):
        inner = [1] * (len(grid) - 2)
        return counted.view(*counted.shape, *inner).expand(*grid).reshape(-1).nonzero().flatten()
    if tuple(grid) == (counted.numel(),):
        return counted.flatten().nonzero().flatten()
    return None
