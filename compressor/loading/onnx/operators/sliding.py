"""Run operators whose windows slide over positions: convolutions and pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.loading.onnx.operators.invocation import Entry, NodeCall

CONV = (F.conv1d, F.conv2d, F.conv3d)
TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
AVERAGE = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
LARGEST = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
WHOLE = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)


class _Window:
    """The window of a call: kernel, strides, dilations and the widths of padding."""

    def __init__(self, call: NodeCall, kernel: Sequence[int], sizes: Sequence[Any]) -> None:
        rank = len(kernel)
        self.kernel = list(kernel)
        self.stride = list(call.get("strides") or [1] * rank)
        self.dilation = list(call.get("dilations") or [1] * rank)
        pads = call.get("pads") or [0] * 2 * rank
        self.before, self.after = list(pads[:rank]), list(pads[rank:])
        auto = call.get("auto_pad", "NOTSET")
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            self._pad_to_same(sizes, upper=auto == "SAME_UPPER")
        elif auto == "VALID":
            self.before, self.after = [0] * rank, [0] * rank

    def _pad_to_same(self, sizes: Sequence[Any], *, upper: bool) -> None:
        for i, size in enumerate(sizes):
            steps = -(-size // self.stride[i])
            reach = (self.kernel[i] - 1) * self.dilation[i] + 1
            total = max(0, (steps - 1) * self.stride[i] + reach - size)
            less, more = total // 2, total - total // 2
            self.before[i], self.after[i] = (less, more) if upper else (more, less)

    def count_up(self, sizes: Sequence[Any]) -> list[int]:
        """Let windows that begin within the values and end behind the padding count, in place.

        Returns:
            By how much the padding at each end grows for them; less than 0 where some is unused.
        """
        more = []
        for i, size in enumerate(sizes):
            reach = (self.kernel[i] - 1) * self.dilation[i] + 1
            whole, stride = size + self.before[i] + self.after[i], self.stride[i]
            last = -(-(whole - reach) // stride)
            last -= last * stride >= size + self.before[i]
            more.append(last * stride + reach - whole)
        self.after = [a + m for a, m in zip(self.after, more, strict=True)]
        return more

    @property
    def is_even(self) -> bool:
        """Return whether both ends are padded alike."""
        return self.before == self.after

    @property
    def is_half(self) -> bool:
        """Return whether no padding is wider than half of a window."""
        return all(2 * p <= k for p, k in zip(self.before, self.kernel, strict=True))

    @property
    def widths(self) -> list[int]:
        """Return the widths as F.pad takes them."""
        return _widths(self.before, self.after)


def _widths(before: Sequence[int], after: Sequence[int]) -> list[int]:
    pairs = zip(reversed(before), reversed(after), strict=True)
    return [width for pair in pairs for width in pair]


def convolve(call: NodeCall) -> Tensor:
    """Conv: with groups; uneven padding is put around first."""
    x, weight, bias = call.x, call.tensor(1), call.optional(2)
    window = _Window(call, list(weight.shape[2:]), x.shape[2:])
    if not window.is_even:
        x = F.pad(x, window.widths)
        window.before = [0] * len(window.before)
    function: Any = CONV[weight.dim() - 3]
    rest = (window.stride, window.before, window.dilation, call.get("group", 1))
    convolved: Tensor = function(x, weight, bias, *rest)
    return convolved


def convolve_transposed(call: NodeCall) -> Tensor:
    """ConvTranspose: what uneven padding takes off more is cut off last."""
    x, weight, bias = call.x, call.tensor(1), call.optional(2)
    rank = weight.dim() - 2
    window = _Window(
        _without_auto(call), call.get("kernel_shape") or list(weight.shape[2:]), x.shape[2:]
    )
    extra = list(call.get("output_padding") or [0] * rank)
    if call.get("output_shape") or call.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        _fit_output(call, window, x, extra)
    padding = [min(a, b) for a, b in zip(window.before, window.after, strict=True)]
    over = [b - p for b, p in zip(window.before, padding, strict=True)]
    more = [a - p for a, p in zip(window.after, padding, strict=True)]
    function: Any = TRANSPOSED[rank - 1]
    rest = (window.stride, padding, extra, call.get("group", 1), window.dilation)
    convolved: Tensor = function(x, weight, bias, *rest)
    for i, (first, last) in enumerate(zip(over, more, strict=True), start=2):
        if first or last:
            convolved = convolved.narrow(i, first, convolved.shape[i] - first - last)
    return convolved


def _without_auto(call: NodeCall) -> NodeCall:
    rest = {name: value for name, value in call.attributes.items() if name != "auto_pad"}
    return NodeCall(**{**vars(call), "attributes": rest})


def _fit_output(call: NodeCall, window: _Window, x: Tensor, extra: list[int]) -> None:
    """Choose the padding, in place, by the sizes that the output is to have."""
    upper = call.get("auto_pad", "NOTSET") != "SAME_LOWER"
    sizes = list(x.shape[2:])
    wanted = (call.get("output_shape") or [])[-len(sizes) :]
    wanted = wanted or [n * s for n, s in zip(sizes, window.stride, strict=True)]
    for i, size in enumerate(sizes):
        reach = (window.kernel[i] - 1) * window.dilation[i] + 1
        total = window.stride[i] * (size - 1) + extra[i] + reach - wanted[i]
        if total < 0:
            extra[i], total = extra[i] - total, 0
        less, more = total // 2, total - total // 2
        window.before[i], window.after[i] = (less, more) if upper else (more, less)


def pool_largest(call: NodeCall) -> Any:
    """MaxPool: the largest of each window."""
    x, kernel = call.x, call.get("kernel_shape")
    window = _Window(call, kernel, x.shape[2:])
    if call.outputs > 1:
        raise call.refusal("returns places beside the values")
    half, up = window.is_half, bool(call.get("ceil_mode", 0))
    if not window.is_even or not half:
        if up:
            window.count_up(x.shape[2:])
        x, up = F.pad(x, window.widths, value=-math.inf), False
        window.before = [0] * len(kernel)
    function: Any = LARGEST[len(kernel) - 1]
    return function(
        *(x, window.kernel, window.stride, window.before, window.dilation), ceil_mode=up
    )


def pool_average(call: NodeCall) -> Any:
    """AveragePool: the mean of each window, with or without its padding."""
    x, kernel = call.x, call.get("kernel_shape")
    window = _Window(call, kernel, x.shape[2:])
    counts, up = bool(call.get("count_include_pad", 0)), bool(call.get("ceil_mode", 0))
    if any(d != 1 for d in window.dilation):
        raise call.refusal("averages with gaps")
    function: Any = AVERAGE[len(kernel) - 1]
    if window.is_even and window.is_half:
        return function(x, window.kernel, window.stride, window.before, up, counts)
    ones = F.pad(torch.ones_like(x[:1, :1]), window.widths, value=float(counts))
    more = window.count_up(x.shape[2:]) if up else [0] * len(kernel)
    padded = function(F.pad(x, window.widths), window.kernel, window.stride)
    if counts and not any(more):
        return padded
    ones = F.pad(ones, _widths([0] * len(kernel), more))
    return padded / function(ones, window.kernel, window.stride)


def average_all(call: NodeCall) -> Tensor:
    """GlobalAveragePool: the mean over all positions."""
    function: Any = WHOLE[call.x.dim() - 3]
    mean: Tensor = function(call.x, 1)
    return mean


def largest_of_all(call: NodeCall) -> Tensor:
    """GlobalMaxPool: the largest of all positions."""
    return call.x.amax(list(range(2, call.x.dim())), keepdim=True)


def pool_by_norm(call: NodeCall) -> Tensor:
    """LpPool: the norm of each window."""
    x, kernel, p = call.x, call.get("kernel_shape"), float(call.get("p", 2))
    window = _Window(call, kernel, x.shape[2:])
    if any(d != 1 for d in window.dilation):
        raise call.refusal("has gaps")
    if call.get("ceil_mode", 0):
        window.count_up(x.shape[2:])
    function: Any = AVERAGE[len(kernel) - 1]
    powers = F.pad(x.abs() ** p, window.widths)
    sums = function(powers, window.kernel, window.stride) * math.prod(kernel)
    return torch.pow(sums, 1 / p)


def norm_of_all(call: NodeCall) -> Tensor:
    """GlobalLpPool: the norm over all positions."""
    p = float(call.get("p", 2))
    sums = (call.x.abs() ** p).sum(list(range(2, call.x.dim())), keepdim=True)
    return torch.pow(sums, 1 / p)


ENTRIES: dict[str, Entry] = {
    "AveragePool": pool_average,
    "Conv": convolve,
    "ConvTranspose": convolve_transposed,
    "GlobalAveragePool": average_all,
    "GlobalLpPool": norm_of_all,
    "GlobalMaxPool": largest_of_all,
    "LpPool": pool_by_norm,
    "MaxPool": pool_largest,
}
