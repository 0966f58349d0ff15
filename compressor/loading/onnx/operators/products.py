"""Run matrix products."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.loading.onnx.operators.invocation import Entry, NodeCall

LINEAR = "compressor.Linear"
"""The key of a product with a stored weight [out, in], and a bias where one is added."""


def linear(call: NodeCall) -> Tensor:
    """A product with a stored weight, as torch's linear layers have it."""
    return F.linear(call.x, call.tensor(1), call.optional(2))


def matmul(call: NodeCall) -> Tensor:
    """MatMul: products of the last two dimensions."""
    return torch.matmul(call.tensor(0), call.tensor(1))


def gemm(call: NodeCall) -> Any:
    """Gemm: alpha * A B + beta * C, either one transposed."""
    a, b, c = call.tensor(0), call.tensor(1), call.raw(2)
    a = a.t() if call.get("transA", 0) else a
    b = b.t() if call.get("transB", 0) else b
    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)
    out = torch.matmul(a, b)
    out = out if alpha == 1 else out * alpha
    if c is None:
        return out
    added = call.operand(2)
    return out + (added if beta == 1 else added * beta)


def einsum(call: NodeCall) -> Tensor:
    """Einsum: every letter is a dimension."""
    return torch.einsum(call.get("equation"), *(call.tensor(i) for i in range(len(call.inputs))))


def determinant(call: NodeCall) -> Tensor:
    """Det: of square matrices."""
    return torch.det(call.x)


ENTRIES: dict[str, Entry] = {
    LINEAR: linear,
    "Det": determinant,
    "Einsum": einsum,
    "Gemm": gemm,
    "MatMul": matmul,
}
