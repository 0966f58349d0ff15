"""Take from whole tensors what a smaller program still has of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from compressor.graph.axes import Axis, Bools, keep_mask, leaves
from compressor.graph.network import Shape


def keep_positions(tensor: Tensor, shape: Shape, masks: Mapping[Axis, Bools]) -> Tensor:
    """Return the positions of a tensor that stay.

    Args:
        tensor: A weight, or the value of a node for any batch.
        shape: Its solved dimensions.
        masks: Axis -> which of its indices are kept, [size] bool.
    """
    for dim, expression in enumerate(shape):
        if any(axis in masks for axis in leaves(expression)):
            kept = torch.as_tensor(np.flatnonzero(keep_mask(expression, masks)))
            tensor = tensor.index_select(dim, kept.to(tensor.device))
    return tensor
