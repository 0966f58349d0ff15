"""Write attention out as products and a softmax where ONNX has none: not over four dimensions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default


def write_attention_out(program: ExportedProgram) -> ExportedProgram:
    """Return the program with its attention as products and a softmax.

    The program itself is returned where all its attention is over four dimensions; windows that are
    a dimension of their own make it five. It is not changed.
    """
    fused = program.graph_module.graph.find_nodes(op="call_function", target=_ATTENTION)
    if all(node.args[0].meta["val"].dim() == 4 for node in fused):
        return program
    plain: ExportedProgram = program.run_decompositions({_ATTENTION: write_out})
    return plain


def write_out(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Compute softmax(query keyᵀ · scale + mask) value, as in torch's documentation; no dropout.

    Args:
        query: [..., heads, targets, width].
        key: [..., key heads, sources, width].
        value: [..., key heads, sources, value width].
        attn_mask: Numbers that are added, or booleans that are true where attention is allowed.
        dropout_p: Ignored.
        is_causal: Each target attends to no later source; a given mask is ignored.
        scale: Default 1 / sqrt(width).
        enable_gqa: Repeat keys and values for groups of query heads.

    Returns:
        [..., heads, targets, value width].
    """
    if enable_gqa:
        repeats = int(query.shape[-3] // key.shape[-3])
        key, value = (t.repeat_interleave(repeats, -3) for t in (key, value))
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    weights = (query * scale) @ key.transpose(-2, -1)
    weights = weights + _bias(weights, attn_mask, is_causal=is_causal)
    attended: Tensor = weights.softmax(-1) @ value
    return attended


def _bias(weights: Tensor, mask: Tensor | None, *, is_causal: bool) -> Any:
    if is_causal:
        allowed = torch.ones(weights.shape[-2:], dtype=torch.bool, device=weights.device)
        mask = allowed.tril()
    if mask is None:
        return 0.0
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=weights.dtype).masked_fill(~mask, -math.inf)
