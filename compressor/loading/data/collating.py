"""Lay samples side by side as one batch, whatever they are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import default_collate

from compressor.loading.data.binding import TARGETS


class Stacked(NamedTuple):
    """A batch of a dataset that reads many samples at once.

    Attributes:
        batch: Like one sample (a pair of inputs and target, the inputs alone, or a dict), whose
            tensors have the samples along dimension 0.
    """

    batch: Any


class UnequalShapesError(Exception):
    """Raised where tensors that are to be stacked have different shapes."""


def sample_of(sample: Any, takes: Callable[[str], bool]) -> tuple[Any, Any]:
    """Split a sample into its inputs and its target (None where it has none).

    Args:
        sample: A pair (inputs, target), the inputs alone, or a dict.
        takes: Returns whether an input of that name is the network's, and so no target.

    Raises:
        TypeError: The sample has another form.
    """
    if is_mapping(sample):
        sample = dict(sample)
        target = next((n for n in TARGETS if n in sample and not takes(n)), None)
        inputs = {name: value for name, value in sample.items() if name != target}
        return _arrays(inputs), _arrays(sample[target]) if target is not None else None
    if isinstance(sample, tuple | list):
        if len(sample) == 1:
            return _arrays(sample[0]), None
        if len(sample) == 2:
            inputs, target = sample
            return _arrays(inputs), _arrays(target) if is_mapping(target) else target
        raise TypeError(
            f"a sample has {len(sample)} parts, and is not a pair (inputs, target); with several "
            "inputs it is ((first, second), target)"
        )
    if isinstance(sample, Tensor | np.ndarray):
        return sample, None
    raise TypeError(
        f"a sample is a {type(sample).__name__}, not a pair (inputs, target), a dict or a tensor"
    )


def is_mapping(value: Any) -> bool:
    """Return whether a value is a dict of some kind: it has keys, and a value for each."""
    return isinstance(value, Mapping) or (hasattr(value, "keys") and hasattr(value, "__getitem__"))


def _arrays(value: Any) -> Any:
    """Return dicts of any kind as plain ones, and other values as they are.

    Lists of numbers in the dicts (token ids from tokenizers) are made tensors.
    """
    if not is_mapping(value):
        return value
    return {
        name: torch.as_tensor(each) if _is_numbers(each) else _arrays(each)
        for name, each in dict(value).items()
    }


def _is_numbers(value: Any) -> bool:
    """Return whether a value is a list of numbers, or of such lists of the same length."""
    if not isinstance(value, list) or not value:
        return False
    if all(isinstance(v, list) for v in value):
        return len({len(v) for v in value}) == 1 and all(map(_is_numbers, value))
    return all(isinstance(v, int | float) for v in value)


def side_by_side(samples: Sequence[Any]) -> Any:
    """Stack samples of the same structure: each tensor gets a new dimension 0, over the samples.

    Raises:
        UnequalShapesError: Tensors have different shapes, or structures differ.
    """
    flat = [pytree.tree_flatten_with_path(sample) for sample in samples]
    structure = flat[0][1]
    if any(other != structure for _, other in flat):
        raise UnequalShapesError("one has other parts than another")
    columns = zip(*(leaves for leaves, _ in flat), strict=True)
    stacked = [_stack(_place(c[0][0]), [leaf for _, leaf in c]) for c in columns]
    return pytree.tree_unflatten(stacked, structure)


def _place(path: Sequence[Any]) -> str:
    """Return the name of an input for a message, or which one it is."""
    if not path:
        return "one"
    last = path[-1]
    return str(last.key) if hasattr(last, "key") else f"number {getattr(last, 'idx', 0) + 1}"


def _stack(place: str, values: Sequence[Any]) -> Any:
    if all(value is None for value in values):
        return None
    if all(type(value) is float for value in values):
        return torch.tensor(values)
    shapes = [tuple(v.shape) if isinstance(v, Tensor | np.ndarray) else () for v in values]
    other = next((shape for shape in shapes if shape != shapes[0]), None)
    if other is not None:
        first, second = ("x".join(map(str, shape)) or "a number" for shape in (shapes[0], other))
        raise UnequalShapesError(f"{place} is {first}, then {second}")
    return default_collate(list(values))
