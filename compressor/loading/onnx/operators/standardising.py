"""Run normalisations and what makes shares: batch, layer and group norms, softmax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.loading.onnx.operators.invocation import Entry, NodeCall


def batch_norm(call: NodeCall) -> Tensor:
    """BatchNormalization: by the stored statistics, or in training by the batch's own."""
    x, scale, bias, mean, var = (call.tensor(i) for i in range(5))
    momentum = 1.0 - call.get("momentum", 0.9)
    eps = call.get("epsilon", 1e-5)
    if x.dim() == 1 or call.get("training_mode", 0):
        raise call.refusal("normalises a vector, or by the statistics of the batch")
    return F.batch_norm(x, mean, var, scale, bias, call.training, momentum, eps)


def instance_norm(call: NodeCall) -> Tensor:
    """InstanceNormalization: per sample and channel."""
    eps = call.get("epsilon", 1e-5)
    return F.instance_norm(call.x, weight=call.tensor(1), bias=call.tensor(2), eps=eps)


def layer_norm(call: NodeCall) -> Any:
    """LayerNormalization: over the dimensions from an axis on."""
    x, axis = call.x, call.get("axis", -1) % call.x.dim()
    if call.outputs > 1:
        raise call.refusal("returns statistics beside the values")
    shape, weight, bias = list(x.shape[axis:]), call.tensor(1), call.optional(2)
    eps = call.get("epsilon", 1e-5)
    if list(weight.shape) == shape and (bias is None or list(bias.shape) == shape):
        return F.layer_norm(x, shape, weight, bias, eps)
    scaled = F.layer_norm(x, shape, None, None, eps) * weight
    return scaled if bias is None else scaled + bias


def rms_norm(call: NodeCall) -> Tensor:
    """RMSNormalization: by the root of the mean square, over the dimensions from an axis on."""
    x, axis = call.x, call.get("axis", -1) % call.x.dim()
    weight = call.tensor(1)
    return F.rms_norm(x, list(weight.shape[-(x.dim() - axis) :]), weight, call.get("epsilon", 1e-5))


def group_norm(call: NodeCall) -> Tensor:
    """GroupNormalization: its scale is per channel, in the first version (18) per group."""
    x, scale, bias = (call.tensor(i) for i in range(3))
    groups = call.get("num_groups")
    if call.version < 21 and scale.shape[0] == groups != x.shape[1]:
        repeats = x.shape[1] // groups
        scale, bias = scale.repeat_interleave(repeats), bias.repeat_interleave(repeats)
    return F.group_norm(x, groups, scale, bias, call.get("epsilon", 1e-5))


def lp_norm(call: NodeCall) -> Tensor:
    """LpNormalization: divided by the norm along an axis."""
    x, axis, p = call.x, call.get("axis", -1), call.get("p", 2)
    return x / (x.abs().sum(axis, True) if p == 1 else torch.sqrt((x * x).sum(axis, True)))


def mean_variance(call: NodeCall) -> Tensor:
    """MeanVarianceNormalization: mean 0 and variance 1 over axes."""
    x, axes = call.x, list(call.get("axes", [0, 2, 3]))
    centred = x - x.mean(axes, True)
    return centred / torch.sqrt((centred * centred).mean(axes, True) + 1e-9)


def local_response(call: NodeCall) -> Tensor:
    """LRN: divided by the squares of neighbouring channels."""
    size, alpha = call.get("size"), call.get("alpha", 1e-4)
    return F.local_response_norm(call.x, size, alpha, call.get("beta", 0.75), call.get("bias", 1.0))


def shares(function: Callable[[Tensor, int], Tensor]) -> Entry:
    """Make an entry: along an axis; before version 13 over all dimensions from it on."""

    def entry(call: NodeCall) -> Tensor:
        x, axis = call.x, call.get("axis", 1 if call.version < 13 else -1)
        at = axis % x.dim()
        if call.version >= 13 or all(_is_one(size) for size in x.shape[at + 1 :]):
            return function(x, at)
        return function(x.flatten(at), -1).reshape(x.shape)

    return entry


def _is_one(size: Any) -> bool:
    return isinstance(size, int) and size == 1


def _hardmax(x: Tensor, axis: int) -> Tensor:
    """Return 1 for the first largest along an axis, else 0."""
    return F.one_hot(x.argmax(axis), x.shape[axis]).to(x.dtype).movedim(-1, axis)


def attention(call: NodeCall) -> Tensor:
    """Attention (version 23): scaled products of queries, keys and values in heads."""
    query, key, value = (call.tensor(i) for i in range(3))
    if any(call.has(i) for i in (4, 5, 6)) or call.outputs > 1 or call.get("softcap", 0.0):
        raise call.refusal("keeps keys and values, or caps its scores")
    mask, scale = call.optional(3), call.get("scale")
    causal = bool(call.get("is_causal", 0))
    if (causal and mask is not None) or any("window" in name for name in call.attributes):
        raise call.refusal("joins a mask with a causal one, or looks through a window")
    flat = query.dim() == 3
    if flat:
        query, key, value = (
            torch.unflatten(x, -1, (call.get(name), -1)).transpose(1, 2)
            for x, name in (
                (query, "q_num_heads"),
                (key, "kv_num_heads"),
                (value, "kv_num_heads"),
            )
        )
    shared = query.shape[1] != key.shape[1]
    out = F.scaled_dot_product_attention(
        *(query, key, value), attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=shared
    )
    return out.transpose(1, 2).flatten(2) if flat else out


def skip_layer_norm(call: NodeCall) -> Tensor:
    """ONNX Runtime's SkipLayerNormalization: a layer norm of a sum."""
    x = call.tensor(0) + call.tensor(1)
    x = x if call.optional(4) is None else x + call.tensor(4)
    weight = call.tensor(2)
    eps = call.get("epsilon", 1e-12)
    return F.layer_norm(x, list(weight.shape), weight, call.optional(3), eps)


ENTRIES: dict[str, Entry] = {
    "Attention": attention,
    "BatchNormalization": batch_norm,
    "GroupNormalization": group_norm,
    "Hardmax": shares(_hardmax),
    "InstanceNormalization": instance_norm,
    "LRN": local_response,
    "LayerNormalization": layer_norm,
    "LogSoftmax": shares(torch.log_softmax),
    "LpNormalization": lp_norm,
    "MeanVarianceNormalization": mean_variance,
    "RMSNormalization": rms_norm,
    "Softmax": shares(torch.softmax),
    "com.microsoft.SkipLayerNormalization": skip_layer_norm,
}
