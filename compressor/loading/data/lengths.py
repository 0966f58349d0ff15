"""Samples of different lengths: filled up under a mask, or batches of one length each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils import _pytree as pytree

from compressor.calls import Call
from compressor.errors import CompressorError
from compressor.loading.data.binding import Forward
from compressor.padding import absent_value, is_mask
from compressor.recover.evaluation import IGNORED

Form = tuple[tuple[int, ...], ...]
"""The shapes of a sample's tensors."""


def form_of(sample: Any) -> Form:
    """Return the shapes of all of a sample's tensors and arrays; () for a number."""
    leaves = pytree.tree_leaves(sample)
    return tuple(tuple(x.shape) if isinstance(x, Tensor | np.ndarray) else () for x in leaves)


def group_by_form(forms: Sequence[Form], size: int, least: int) -> list[list[int]]:
    """Share positions out to batches of one form each.

    Args:
        forms: Of each sample, in the order in which they are taken.
        size: The most samples of a batch.
        least: Batches of fewer samples are left out, unless there would be none.

    Returns:
        Positions in `forms`, batch by batch, in the order of the forms' first samples.
    """
    groups: dict[Form, list[int]] = {}
    for position, form in enumerate(forms):
        groups.setdefault(form, []).append(position)
    batches = [some[i : i + size] for some in groups.values() for i in range(0, len(some), size)]
    return [batch for batch in batches if len(batch) >= least] or batches


def mask_of(call: Call, forward: Forward) -> Tensor | None:
    """Return the input of a sample that says which of its positions there are, if it has one."""
    return next((x for name, x in _named(call, forward) if is_mask(name, x)), None)


def can_be_filled(call: Call, target: Any, forms: Sequence[Form], forward: Forward) -> bool:
    """Return whether samples of different forms differ only in a length that a mask tells.

    Args:
        call: A sample's inputs.
        target: Its target; real numbers cannot be filled up, classes can.
        forms: Of some samples, inputs and target.
        forward: Has the names of the inputs.
    """
    leaves = [*call.leaves, *pytree.tree_leaves(target)]
    mask = mask_of(call, forward)
    if mask is None or len({len(form) for form in forms}) > 1:
        return False
    at = next(i for i, leaf in enumerate(leaves) if leaf is mask)
    lengths = [form[at][-1:] for form in forms]
    for number, shapes in enumerate(zip(*forms, strict=True)):
        differ = len(set(shapes)) > 1
        is_target = number >= len(call.leaves)
        if differ and is_target and torch.as_tensor(leaves[number]).is_floating_point():
            return False
        if len({len(shape) for shape in shapes}) > 1:
            return False
        columns = (list(sizes) for sizes in zip(*shapes, strict=True))
        if any(len(set(c)) > 1 and [(n,) for n in c] != lengths for c in columns):
            return False
    return True


def fill(
    call: Call,
    target: Any,
    examples: Call,
    forward: Forward,
    fillers: Mapping[str, float],
) -> tuple[Call, Any]:
    """Fill a sample up to the length of the examples; the mask says that nothing is there.

    Args:
        call: The sample's inputs, which have a mask.
        target: Its target; positions of classes are filled up with `IGNORED`.
        examples: Inputs with a batch dimension.
        forward: Has the names of the inputs.
        fillers: Name of an input -> what it is filled up with; 0 where none is named.

    Raises:
        CompressorError: The sample is longer than the examples.
    """
    mask, wanted = mask_of(call, forward), mask_of(examples, forward)
    if mask is None or wanted is None:
        return call, target
    own, length = mask.shape[-1], wanted.shape[-1]
    if own > length:
        raise CompressorError(
            f"a sample has the length {own}, and the network is traced with {length}",
            consequence="it cannot be filled up to one length with the others",
            next_step=f"cut samples to {length}, or give --input of the longest",
        )
    structure = pytree.tree_structure(call)
    made = [
        _lengthen(leaf, example.shape[1:], _filler(name, leaf, mask, fillers))
        if isinstance(leaf, Tensor) and isinstance(example, Tensor)
        else leaf
        for (name, leaf), example in zip(_named(call, forward), examples.leaves, strict=True)
    ]
    filled: Call = pytree.tree_unflatten(made, structure)
    return filled, pytree.tree_map(lambda leaf: _fill_target(leaf, own, length), target)


def _filler(name: str, leaf: Tensor, mask: Tensor, fillers: Mapping[str, float]) -> float:
    return absent_value(name, mask) if leaf is mask else fillers.get(name, 0.0)


def _lengthen(tensor: Tensor, shape: Sequence[int], value: float) -> Tensor:
    """Add a value at the ends of a tensor's dimensions, until it has a shape."""
    beside = [(0, wanted - size) for size, wanted in zip(tensor.shape, shape, strict=True)]
    return pad(tensor, [n for pair in reversed(beside) for n in pair], value=value)


def _fill_target(target: Any, own: int, length: int) -> Any:
    if not isinstance(target, Tensor | np.ndarray) or own not in target.shape:
        return target
    shape = list(target.shape)
    shape[shape.index(own)] = length
    return _lengthen(torch.as_tensor(target), shape, IGNORED)


def _named(call: Call, forward: Forward) -> Iterator[tuple[str, Any]]:
    """Yield all inputs with their names; "" for one that has none."""
    names = dict(enumerate(forward.names))
    for path, leaf in pytree.tree_flatten_with_path(call)[0]:
        last: Any = path[-1]
        is_position = len(path) == 2 and not hasattr(last, "key")
        yield names.get(last.idx, "") if is_position else str(getattr(last, "key", "")), leaf
