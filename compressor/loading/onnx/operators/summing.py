"""Run reductions along dimensions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from compressor.loading.onnx.operators.invocation import Entry, NodeCall

Reduction = Callable[[Tensor, list[int], bool], Tensor]


def reduced(function: Reduction) -> Entry:
    """Make an entry: along the listed axes, or all; sizes of 1 stay where they are asked for.

    Where no axes are to mean none, every element is a sum of its own.
    """

    def entry(call: NodeCall) -> Tensor:
        x = call.x
        axes = [int(axis) % x.dim() for axis in call.given_numbers(1, [])]
        if not axes:
            if call.get("noop_with_empty_axes", 0):
                return function(x.unsqueeze(-1), [x.dim()], False)
            axes = list(range(x.dim()))
        return function(x, axes, bool(call.get("keepdims", 1)))

    return entry


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keep)
    return x


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.mean(axes, keep)


def _norm(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.sqrt((x * x).sum(axes, keep))


ENTRIES: dict[str, Entry] = {
    "ReduceL1": reduced(lambda x, axes, keep: x.abs().sum(axes, keep)),
    "ReduceL2": reduced(_norm),
    "ReduceLogSum": reduced(lambda x, axes, keep: torch.log(x.sum(axes, keep))),
    "ReduceLogSumExp": reduced(lambda x, axes, keep: torch.logsumexp(x, axes, keep)),
    "ReduceMax": reduced(lambda x, axes, keep: x.amax(axes, keep)),
    "ReduceMean": reduced(_mean),
    "ReduceMin": reduced(lambda x, axes, keep: x.amin(axes, keep)),
    "ReduceProd": reduced(_product),
    "ReduceSum": reduced(lambda x, axes, keep: x.sum(axes, keep, dtype=x.dtype)),
    "ReduceSumSquare": reduced(lambda x, axes, keep: (x * x).sum(axes, keep)),
}
