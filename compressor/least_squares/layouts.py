"""Describe how an operator that contracts a weight is a linear regression.

Each output position is a row, and each weight that an output is summed over is a feature.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.graph.rules.facts import WEIGHING, Weighing
from compressor.least_squares import cells
from compressor.least_squares.cells import Part

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Layout:
    """An operator as `out[block, row, :] = features[block, row, :] @ matrix[block]`.

    Attributes:
        input, weight, bias: Names of its arguments.
        contracted: The weight's dimension that is summed over.
        features: (arguments, rows) -> [blocks, rows, features].
        matrix: (weight, blocks) -> [blocks, features, outputs].
        tensor: (matrix, shape of the weight) -> the weight.
        outputs: (output, rows) -> [rows, all outputs].
        part: Which of a recurrent cell's weights it is about; None is the operator's only one.
    """

    input: str
    weight: str
    bias: str
    contracted: int
    features: Callable[[Arguments, Tensor], Tensor]
    matrix: Callable[[Tensor, int], Tensor]
    tensor: Callable[[Tensor, Sequence[int]], Tensor]
    outputs: Callable[[Tensor, Tensor], Tensor]
    part: Part | None = None

    def of_rows(self, weight: Tensor) -> Tensor:
        """Return the rows of a weight, or of a constant, that the regression is about, a view."""
        return weight if self.part is None else weight[self.part.slice(len(weight))]


# -- products of matrices: (…, in) -> (…, out) -----------------------------------------------------


def _last_features(argument: str) -> Callable[[Arguments, Tensor], Tensor]:
    def features(arguments: Arguments, rows: Tensor) -> Tensor:
        x: Tensor = arguments[argument]
        return x.reshape(-1, x.shape[-1])[rows].unsqueeze(0)

    return features


def _last_outputs(output: Tensor, rows: Tensor) -> Tensor:
    return output.reshape(-1, output.shape[-1])[rows]


def _product(of: Weighing, *, transposed: bool) -> Layout:
    """Build the layout of a matrix product: [..., in] -> [..., out].

    Args:
        of: The operator's arguments.
        transposed: Whether the weight is [out, in], else [in, out].
    """

    def turn(matrix: Tensor) -> Tensor:
        return matrix.t() if transposed else matrix

    return Layout(
        *(of.input, of.weight, of.bias, 1 if transposed else 0),
        features=_last_features(of.input),
        matrix=lambda weight, _: turn(weight).unsqueeze(0),
        tensor=lambda matrix, _: turn(matrix[0]),
        outputs=_last_outputs,
    )


# -- convolutions: (samples, in, *positions) -> (samples, out, *positions) -------------------------


def _several(value: Any, rank: int) -> list[int]:
    listed = list(value) if isinstance(value, list | tuple) else [value]
    return [int(v) for v in (listed * rank if len(listed) == 1 else listed)]


INDICES = 2**18
"""The number of values that are gathered together: an index takes twice the bytes of a value."""


@dataclass(frozen=True)
class _Windows:
    """How a convolution moves over its inputs: a number for each dimension of positions."""

    kernel: Sequence[int]
    stride: Sequence[int]
    dilation: Sequence[int]

    def grid(self, sizes: Sequence[int]) -> list[int]:
        """Return how many output positions padded inputs of these sizes have per dimension."""
        each = zip(sizes, self.kernel, self.stride, self.dilation, strict=True)
        return [(size - (k - 1) * gap - 1) // step + 1 for size, k, step, gap in each]

    def begins(self, x: Tensor, rows: Tensor) -> Tensor:
        """Return where in the memory of padded inputs the first value of each row's window is."""
        grid = (x.shape[0], *self.grid(x.shape[2:]))
        sample, *places = torch.unravel_index(rows, grid)
        begin = sample * x.stride(0)
        for place, step, apart in zip(places, self.stride, x.stride()[2:], strict=True):
            begin += place * step * apart
        return begin

    def offsets(self, x: Tensor) -> Tensor:
        """Return how far from there all values of a window are, in the order (in, *kernel)."""
        found = torch.arange(x.shape[1], device=x.device) * x.stride(1)
        for size, gap, apart in zip(self.kernel, self.dilation, x.stride()[2:], strict=True):
            further = torch.arange(size, device=x.device) * gap * apart
            found = (found.unsqueeze(1) + further).flatten()
        return found


def _gather(x: Tensor, windows: _Windows, rows: Tensor, blocks: int) -> Tensor:
    """Return the features of some rows, [blocks, rows, features]; features are (in, *kernel).

    Args:
        x: Padded inputs [samples, in, *positions].
        windows: What a row sees of them.
        rows: Output positions, counted over samples and positions.
        blocks: The groups of the convolution.
    """
    x = x.detach().contiguous()  # no gradient passes through what is written into place
    begins, offsets = windows.begins(x, rows), windows.offsets(x)
    found = x.new_empty(len(rows), len(offsets))
    some = max(1, INDICES // len(offsets))
    for part, begin in zip(torch.split(found, some), torch.split(begins, some), strict=True):
        places = (begin.unsqueeze(1) + offsets).flatten()
        torch.index_select(x.view(-1), 0, places, out=part.view(-1))
    return found.reshape(len(rows), blocks, -1).transpose(0, 1)


def _convolve(arguments: Arguments, rows: Tensor) -> Tensor:
    x, weight = arguments["input"], arguments["weight"]
    kernel = weight.shape[2:]
    rank = len(kernel)
    stride, dilation = (_several(arguments[name], rank) for name in ("stride", "dilation"))
    x = x if x.dim() == 2 + rank else x.unsqueeze(0)
    padding = arguments["padding"]
    if isinstance(padding, str):
        spread = [gap * (size - 1) for gap, size in zip(dilation, kernel, strict=True)]
        pads = [(s // 2, s - s // 2) if padding == "same" else (0, 0) for s in spread]
    else:
        pads = [(p, p) for p in _several(padding, rank)]
    x = F.pad(x, [p for pair in reversed(pads) for p in pair])
    windows = _Windows(kernel, stride, dilation)
    return _gather(x, windows, rows, int(arguments["groups"]))


def _deconvolve(arguments: Arguments, rows: Tensor) -> Tensor:
    """Return the features of a transposed convolution, [blocks, rows, features].

    It is a convolution of the input with zeros between its values.
    """
    x, weight = arguments["input"], arguments["weight"]
    kernel = weight.shape[2:]
    rank = len(kernel)
    stride, dilation, padding, extra = (
        _several(arguments[name], rank)
        for name in ("stride", "dilation", "padding", "output_padding")
    )
    x = x if x.dim() == 2 + rank else x.unsqueeze(0)
    apart = x.new_zeros(
        *x.shape[:2],
        *((n - 1) * s + 1 for n, s in zip(x.shape[2:], stride, strict=True)),
    )
    apart[(..., *(slice(None, None, s) for s in stride))] = x
    rim = [g * (k - 1) - p for g, k, p in zip(dilation, kernel, padding, strict=True)]
    pads = [p for r, e in reversed(list(zip(rim, extra, strict=True))) for p in (r, r + e)]
    windows = _Windows(kernel, [1] * rank, dilation)
    return _gather(F.pad(apart, pads), windows, rows, int(arguments["groups"]))


def _image_outputs(output: Tensor, rows: Tensor) -> Tensor:
    """Return rows of an output [samples, out, *positions] as [rows, out]."""
    grid = (output.shape[0], *output.shape[2:])
    return output.movedim(1, -1)[torch.unravel_index(rows, grid)]


def _filters(weight: Tensor, blocks: int) -> Tensor:
    """Reshape a weight [out, in / blocks, *kernel] to [blocks, features, out / blocks]."""
    return weight.reshape(blocks, weight.shape[0] // blocks, -1).transpose(1, 2)


def _as_filters(matrix: Tensor, shape: Sequence[int]) -> Tensor:
    return matrix.transpose(1, 2).reshape(*shape)


def _flip(weight: Tensor) -> Tensor:
    return weight.flip(list(range(2, weight.dim()))) if weight.dim() > 2 else weight


def _scatter(weight: Tensor, blocks: int) -> Tensor:
    """Reshape [in, out / blocks, *kernel] to [blocks, features, out / blocks]."""
    inner, out = weight.shape[0] // blocks, weight.shape[1]
    return _flip(weight).reshape(blocks, inner, out, -1).transpose(2, 3).reshape(blocks, -1, out)


def _as_scattered(matrix: Tensor, shape: Sequence[int]) -> Tensor:
    blocks, _, out = matrix.shape
    inner = shape[0] // blocks
    return _flip(matrix.reshape(blocks, inner, -1, out).transpose(2, 3).reshape(*shape))


# -- sums of recurrent cells: sequences (…, in) -> (…, rows of the weights) ------------------------


def _cell(part: str) -> Layout:
    def features(arguments: Arguments, rows: Tensor) -> Tensor:
        values = cells.features(arguments)
        return values.reshape(-1, values.shape[-1])[rows].unsqueeze(0)

    linear = _product(Weighing("linear", "x", "weights", ""), transposed=True)
    return replace(linear, features=features, part=cells.PARTS[part])


CELLS: Mapping[str, Layout] = {part: _cell(part) for part in cells.PARTS}
"""Name of some of a recurrent cell's sums -> how they are a regression."""

FORMS: Mapping[str, Callable[[Weighing], Layout]] = {
    "linear": lambda w: _product(w, transposed=True),
    "product": lambda w: _product(w, transposed=False),
    "convolution": lambda w: Layout(
        *(w.input, w.weight, w.bias, 1, _convolve, _filters, _as_filters, _image_outputs)
    ),
    "transposed convolution": lambda w: Layout(
        *(w.input, w.weight, w.bias, 0, _deconvolve, _scatter, _as_scattered, _image_outputs)
    ),
}
"""What an operator computes -> how it is a regression."""

LAYOUTS: Mapping[str, Layout] = {name: FORMS[w.form](w) for name, w in WEIGHING.items()}
"""Overload -> how it is a regression; an operator that is not here is not re-fitted."""


def blocks_of(arguments: Arguments) -> int:
    """Return how many separate regressions an operator is: the groups of a convolution."""
    return int(arguments.get("groups", 1))


def at_channels(rank: int, layout: Layout) -> int:
    """Return the dimension of an output of so many dimensions that holds its channels."""
    return 1 if layout.outputs is _image_outputs else rank - 1


def row_grid(output: Tensor, layout: Layout) -> list[int]:
    """Return the sizes of the dimensions whose positions are the rows: all but the channels'."""
    channels = at_channels(output.dim(), layout)
    return [size for d, size in enumerate(output.shape) if d != channels]


def row_count(output: Tensor, layout: Layout) -> int:
    """Return the number of output positions, over all samples."""
    return math.prod(row_grid(output, layout))
