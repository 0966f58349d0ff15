"""Run operators that make tensors out of sizes, and sequences out of tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressor.loading.onnx.contents import TYPES, as_float32
from compressor.loading.onnx.operators.invocation import Entry, NodeCall


def constant_of_shape(call: NodeCall) -> Tensor:
    """ConstantOfShape: one value everywhere."""
    value = call.get("value")
    array = as_float32(np.zeros(1, np.float32) if value is None else value)
    dtype = torch.from_numpy(array.reshape(-1)[:1].copy()).dtype
    fill = array.reshape(-1)[0].item()
    return torch.full(call.numbers(0), fill, dtype=dtype, device=call.device)


def count_up(call: NodeCall) -> Tensor:
    """Range: from a start to a limit by steps."""
    start, limit, step = (call.number(i) for i in range(3))
    dtype = call.raw(0).dtype
    return torch.arange(start, limit, step, dtype=dtype, device=call.device)


def eye_like(call: NodeCall) -> Tensor:
    """EyeLike: ones on a diagonal of a matrix of the given one's sizes."""
    x, kind = call.x, call.get("dtype")
    rows, columns = x.shape
    eye = torch.eye(rows, columns, dtype=x.dtype if kind is None else TYPES[kind], device=x.device)
    if call.get("k", 0):
        raise call.refusal("has ones beside the main diagonal")
    return eye


def sequence(call: NodeCall) -> Any:
    """SequenceConstruct: its inputs as a sequence."""
    return (tuple(call.inputs),)


def split_to_sequence(call: NodeCall) -> Any:
    """SplitToSequence: pieces along an axis as a sequence."""
    x, axis = call.x, call.get("axis", 0)
    if call.has(1):
        value = call.raw(1)
        sizes = call.numbers(1)
        return (tuple(torch.split(x, sizes if value.array.ndim else sizes[0], axis)),)
    pieces = torch.split(x, 1, axis)
    return (pieces if call.get("keepdims", 1) else tuple(p.squeeze(axis) for p in pieces),)


def sequence_at(call: NodeCall) -> Any:
    """SequenceAt: one of a sequence."""
    return (call.raw(0)[call.number(1)],)


def concat_sequence(call: NodeCall) -> Tensor:
    """ConcatFromSequence: joined along an axis, an old or a new one."""
    parts = list(call.raw(0))
    return (torch.stack if call.get("new_axis", 0) else torch.cat)(parts, call.get("axis"))


ENTRIES: dict[str, Entry] = {
    "ConcatFromSequence": concat_sequence,
    "ConstantOfShape": constant_of_shape,
    "EyeLike": eye_like,
    "Range": count_up,
    "SequenceAt": sequence_at,
    "SequenceConstruct": sequence,
    "SplitToSequence": split_to_sequence,
}
