"""What a model returns for example inputs: whether anything can be compared by it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from compressor.errors import CompressorError

NO_ANSWERS = (type(None), str, bytes, bool, int, float, complex)


class NotFiniteError(CompressorError):
    """A network that answers with nothing but NaN and infinities."""


def refuse_useless(returned: Any) -> None:
    """Refuse what a forward returned where it holds no tensor, or no finite number: whatever was
    made of the network would agree with it.

    Leaves of classes that are not known (dataclasses) may hold tensors, so they pass.

    Raises:
        CompressorError: No tensor is returned.
        NotFiniteError: No number that is returned is finite.
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
