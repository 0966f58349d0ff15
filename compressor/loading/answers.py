"""Check that a model's outputs for the example inputs can be compared with anything."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from compressor.errors import CompressorError

NO_ANSWERS = (type(None), str, bytes, bool, int, float, complex)


class NotFiniteError(CompressorError):
    """The error raised where a network returns nothing but NaN and infinities."""


def refuse_useless(returned: Any) -> None:
    """Raise an error where a forward returned no tensor, or no finite number.

    Such outputs would agree with those of any network made from it. Leaves of unknown classes
    (dataclasses) may hold tensors, so they pass.

    Args:
        returned: The forward's return value, in any nesting; it is not changed.

    Raises:
        CompressorError: No tensor is returned.
        NotFiniteError: No returned number is finite.
    """
    leaves = pytree.tree_leaves(returned)
    if all(isinstance(leaf, NO_ANSWERS) or hasattr(leaf, "__next__") for leaf in leaves):
        kinds = ", ".join(dict.fromkeys(type(leaf).__name__ for leaf in leaves)) or "nothing"
        raise CompressorError(
            f"the model returns no tensor, but {kinds}",
            consequence="nothing shows what its channels do",
            next_step="let its forward return a tensor, or tensors in tuples, lists or dicts",
        )
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if len(tensors) == len(leaves) and not any(map(_has_finite, tensors)):
        raise NotFiniteError(
            "the model's outputs for the example inputs are all NaN or infinite",
            consequence="every comparison of the result with the original would show nothing",
            next_step="check its weights, or give inputs like those that it is made for: "
            "--data, or example_inputs in Python",
        )


def _has_finite(tensor: Tensor) -> bool:
    if tensor.layout != torch.strided or not tensor.numel():
        return True
    values = tensor.double() if tensor.is_floating_point() else tensor
    return bool(values.isfinite().any())
