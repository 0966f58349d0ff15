"""Tell what a file's constants are: weights that learn, buffers, or numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from compressor.loading.onnx.contents import Constant, Node, as_float32
from compressor.loading.onnx.small_numbers import Array, Numbers, numbers
from compressor.loading.onnx.stored_forms import GATES

WEIGHTS: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "BatchNormalization"), (1, 2)),
    **dict.fromkeys(("InstanceNormalization", "GroupNormalization", "LayerNormalization"), (1, 2)),
    **dict.fromkeys(GATES, (1, 2, 3)),
    **dict.fromkeys(("Add", "Mul", "MatMul"), (0, 1)),
    "com.microsoft.SkipLayerNormalization": (2, 3, 4),
    "Einsum": (0, 1, 2),
    "Gather": (0,),
    "PRelu": (1,),
    "RMSNormalization": (1,),
}
"""Operator -> positions of its inputs that learn where the file holds them."""

HANDED_ON = frozenset(
    ["Cast", "Concat", "Expand", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"]
)
"""Operators that hand on what they are given: an initializer behind them learns, too."""

SCALARS = frozenset(["Add", "Mul", "Gather", "Einsum", "MatMul"]) | HANDED_ON
"""Operators for which a float of one element is a number and not a weight."""

FEW = 64
"""The most elements of a constant that is carried as numbers."""


def is_right_factor(node: Node, position: int) -> bool:
    """Return whether a matrix [in, out] is used as the right factor of a product."""
    is_turned = node.attributes.get("transB", 0) or node.attributes.get("transA", 0)
    plain = node.attributes.get("alpha", 1.0) == 1.0 == node.attributes.get("beta", 1.0)
    return node.op in ("MatMul", "Gemm") and position == 1 and not is_turned and plain


def learns(constant: Constant, uses: Sequence[tuple[Node, int]]) -> bool:
    """Return whether a constant is a parameter, by the nodes and positions that take it."""
    is_float = constant.array.dtype.kind == "f" or constant.array.dtype.name == "bfloat16"
    if not is_float or constant.array.ndim == 0 or constant.array.size == 0:
        return False
    if constant.array.size == 1 and all(node.op in SCALARS for node, _ in uses):
        return _is_bias_of_one_channel(constant, uses)
    return any(
        position in WEIGHTS.get(node.op, ())
        or (constant.is_initializer and node.op in HANDED_ON and constant.array.size > 1)
        for node, position in uses
    )


def _is_bias_of_one_channel(constant: Constant, uses: Sequence[tuple[Node, int]]) -> bool:
    """Return whether a constant of one element has the rank of maps, and is added to some."""
    return constant.array.ndim >= 3 and all(node.op == "Add" for node, _ in uses)


def is_few(constant: Constant, uses: Sequence[tuple[Node, int]]) -> bool:
    """Return whether a constant that does not learn is carried as numbers, else it is a buffer."""
    if any(node.op == "BatchNormalization" or node.op in GATES for node, _ in uses):
        return False
    is_float = as_float32(constant.array[:0] if constant.array.ndim else constant.array).dtype.kind
    if is_float == "f" and constant.array.size > 1:
        places = {("Resize", 1), ("Resize", 2), ("Upsample", 1)}
        return constant.array.size <= FEW and all((n.op, at) in places for n, at in uses)
    return constant.array.size <= FEW


def as_numbers(constant: Constant) -> Numbers:
    """Return a constant as numbers."""
    array: Array = as_float32(constant.array)
    dtype = torch.from_numpy(np.zeros(1, array.dtype)).dtype
    return numbers(array.astype(object), dtype)
