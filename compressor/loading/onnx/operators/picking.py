"""Run operators that pick values by place or by size, or that write to places."""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.loading.onnx.operators.invocation import Entry, NodeCall
from compressor.loading.onnx.small_numbers import Numbers


def gather(call: NodeCall) -> Tensor:
    """Gather: along an axis; rows of a table are an embedding."""
    x, axis = call.x, call.get("axis", 0) % call.x.dim()
    index = call.raw(1)
    if isinstance(index, Numbers):
        return _gather_numbers(call, x, axis, index)
    if axis == 0 and x.dim() == 2 and isinstance(x, torch.nn.Parameter):
        return F.embedding(index.long(), x)
    return x[_along(axis, index)]


def _gather_numbers(call: NodeCall, x: Tensor, axis: int, index: Numbers) -> Tensor:
    places = index.listed
    if index.array.ndim == 0:
        return x.select(axis, places[0])
    if index.is_plain and index.array.ndim == 1:
        steps = {b - a for a, b in itertools.pairwise(places)} or {1}
        if steps == {1} and places[0] >= 0:
            return x[_along(axis, slice(places[0], places[-1] + 1))]
    if axis == 0 and x.dim() == 2 and isinstance(x, torch.nn.Parameter) and index.is_plain:
        return F.embedding(call.tensor(1).long() % x.shape[0], x)
    return x[_along(axis, call.tensor(1))]


def _along(axis: int, index: Any) -> Any:
    return (*[slice(None)] * axis, index)


def gather_elements(call: NodeCall) -> Tensor:
    """GatherElements: element by element along an axis."""
    x, axis = call.x, call.get("axis", 0)
    return torch.gather(x, axis, _positive(call.tensor(1), x.shape[axis]))


def _positive(index: Tensor, size: Any) -> Tensor:
    index = index.long()
    return torch.where(index < 0, index + size, index)


def gather_nd(call: NodeCall) -> Tensor:
    """GatherND: by tuples of places."""
    x, index, batch = call.x, call.tensor(1), call.get("batch_dims", 0)
    if batch == 0:
        return x[index.unbind(-1)]
    if batch != 1:
        raise call.refusal("has more than one batch dimension")
    rows = torch.arange(x.shape[0], device=x.device)
    rows = rows.reshape(-1, *[1] * (index.dim() - 2))
    return x[(rows, *index.unbind(-1))]


def scatter_nd(call: NodeCall) -> Tensor:
    """ScatterND: values are written, or added, at tuples of places."""
    x, index, values = call.x, call.tensor(1), call.tensor(2)
    kind = call.get("reduction", "none")
    if kind not in ("none", "add"):
        raise call.refusal(f"reduces by {kind}")
    return torch.index_put(x, index.unbind(-1), values, accumulate=kind == "add")


def scatter_elements(call: NodeCall) -> Tensor:
    """ScatterElements: values are written, or reduced, at places along an axis."""
    x, axis, kind = call.x, call.get("axis", 0), call.get("reduction", "none")
    index, values = _positive(call.tensor(1), x.shape[axis]), call.tensor(2)
    if kind == "none":
        return torch.scatter(x, axis, index, values)
    words = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
    return torch.scatter_reduce(x, axis, index, values, words[kind])


def top_k(call: NodeCall) -> Any:
    """TopK: the largest or smallest along an axis, with their places."""
    return torch.topk(
        call.x,
        call.number(1),
        call.get("axis", -1),
        bool(call.get("largest", 1)),
        bool(call.get("sorted", 1)),
    )


def arg_max(call: NodeCall) -> Any:
    """ArgMax: the place of the largest along an axis."""
    return _arg(call, torch.argmax)


def arg_min(call: NodeCall) -> Any:
    """ArgMin: the place of the smallest along an axis."""
    return _arg(call, torch.argmin)


def _arg(call: NodeCall, function: Any) -> Any:
    x, axis, keep = call.x, call.get("axis", 0), bool(call.get("keepdims", 1))
    if not call.get("select_last_index", 0):
        return function(x, axis, keep)
    place = function(torch.flip(x, [axis]), axis, keep)
    return x.shape[axis] - 1 - place


def one_hot(call: NodeCall) -> Tensor:
    """OneHot: one value where the index says, another elsewhere."""
    index, depth, axis = call.tensor(0), int(call.number(1)), call.get("axis", -1)
    off, on = call.tensor(2).reshape(2).unbind()
    places = torch.arange(depth, device=index.device)
    hot = _positive(index, depth).unsqueeze(-1) == places
    values = torch.where(hot, on, off)
    return values if axis in (-1, index.dim()) else values.movedim(-1, axis)


def nonzero(call: NodeCall) -> Tensor:
    """NonZero: the places of what is not zero, one row per dimension."""
    return torch.nonzero(call.x).t()


def compress(call: NodeCall) -> Tensor:
    """Compress: what a row of flags says, along an axis."""
    x, flags, axis = call.x, call.tensor(1), call.get("axis")
    x = x.flatten() if axis is None else x
    places = torch.nonzero(flags).squeeze(1)
    return torch.index_select(x, axis or 0, places)


def cumulate(call: NodeCall) -> Tensor:
    """CumSum: along an axis, from either end, with or without the element itself."""
    x, axis = call.x, int(call.number(1))
    turned = torch.flip(x, [axis]) if call.get("reverse", 0) else x
    sums = torch.cumsum(turned, axis, dtype=x.dtype)
    if call.get("exclusive", 0):
        sums = sums - turned
    return torch.flip(sums, [axis]) if call.get("reverse", 0) else sums


ENTRIES: dict[str, Entry] = {
    "ArgMax": arg_max,
    "ArgMin": arg_min,
    "Compress": compress,
    "CumSum": cumulate,
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "NonZero": nonzero,
    "OneHot": one_hot,
    "Scatter": scatter_elements,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "TopK": top_k,
}
