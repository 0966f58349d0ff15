"""Count the multiply-adds and parameters of an ncnn model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from compressor.formats.job import Counted
from compressor.runtimes.ncnn_params import Layer, Sizes, read_layers


@dataclass(frozen=True)
class _Operation:
    """A layer, with the sizes of what it takes and of its first output."""

    layer: Layer
    inputs: tuple[Sizes, ...]
    output: Sizes


def _by_kernel(of: _Operation) -> int:
    """Convolution, grouped or not: every weight is used once at each position of the output."""
    return of.layer.number(6) * prod(of.output[1:])


def _by_spread_kernel(of: _Operation) -> int:
    """Transposed: every weight is used once at each position of the input."""
    return of.layer.number(6) * prod(of.inputs[0][1:])


def _by_rows(of: _Operation) -> int:
    """Linear layer: every weight is used once for each row."""
    return of.layer.number(2) * prod(of.inputs[0][:-1])


def _by_contraction(of: _Operation) -> int:
    """Matrix product: each output is a sum over the first one's columns."""
    return prod(of.output) * of.inputs[0][-1]


def _by_given_contraction(of: _Operation) -> int:
    """Matrix product, of which either factor may be stored or transposed."""
    inner = of.layer.number(9)
    if not inner:
        inner = of.inputs[0][0 if of.layer.number(2) else -1]
    return prod(of.output) * inner


def _by_cell(gates: int) -> Callable[[_Operation], int]:
    """Recurrent layer: every weight is used once at each step."""

    def macs(of: _Operation) -> int:
        width, directions = of.layer.number(0), 2 if of.layer.number(2) == 2 else 1
        hidden = of.layer.number(3, width) if gates == 4 else width
        projected = width * hidden if hidden != width else 0
        own = directions * (gates * hidden * width + projected)
        return of.inputs[0][0] * (of.layer.number(1) + own)

    return macs


def _by_attention(of: _Operation) -> int:
    """Attention: queries by keys, and that by values; [heads, rows, width] each."""
    query, _, value = (*of.inputs, *of.inputs[-1:] * 2)[:3]
    return (prod(query) + prod(of.output)) * value[-2]


def _by_projected_attention(of: _Operation) -> int:
    """Attention with the linear layers before and after it; rows [rows, width]."""
    width, size = of.layer.number(0), of.layer.number(2)
    query, key, value = (*of.inputs, *of.inputs[-1:] * 2)[:3]
    before = query[0] * size + width * (prod(key) + prod(value))
    return before + of.output[0] * size + 2 * query[0] * key[0] * width


_CONVOLUTIONS = ("", "1D", "3D", "DepthWise", "DepthWise1D", "DepthWise3D")

MACS: Mapping[str, Callable[[_Operation], int]] = {
    **{f"Convolution{which}": _by_kernel for which in _CONVOLUTIONS},
    **{f"Deconvolution{which}": _by_spread_kernel for which in _CONVOLUTIONS},
    "InnerProduct": _by_rows,
    "MatMul": _by_contraction,
    "Gemm": _by_given_contraction,
    "LSTM": _by_cell(4),
    "GRU": _by_cell(3),
    "RNN": _by_cell(1),
    "SDPA": _by_attention,
    "MultiHeadAttention": _by_projected_attention,
}
"""Multiply-adds of one sample, by the type of a layer."""

_FLAGS: Mapping[str, Callable[[Layer], int]] = {
    **{f"{which}onvolution{more}": lambda _: 1 for which in ("C", "Dec") for more in _CONVOLUTIONS},
    **{kind: lambda _: 1 for kind in ("InnerProduct", "Embed")},
    **{kind: lambda _: 3 for kind in ("LSTM", "GRU", "RNN")},
    "MultiHeadAttention": lambda _: 4,
    "Gemm": lambda layer: sum(layer.number(key) for key in (4, 5)) + _has_constant_sum(layer),
    "MemoryData": lambda layer: int(layer.number(21, 1) == 0),
}
"""How many words before the weights of a layer say the type of its numbers."""


def _has_constant_sum(layer: Layer) -> int:
    return int(layer.number(6) == 1 and layer.number(10) != -1)


def count_layers(path: Path, sizes: Mapping[str, Sizes]) -> Counted:
    """Count what is in a model.

    Args:
        path: The .param file.
        sizes: The sizes of all that a call computes, by name.
    """
    layers = read_layers(path)
    macs = sum(MACS[each.kind](_operation(each, sizes)) for each in layers if each.kind in MACS)
    words = path.with_suffix(".bin").stat().st_size // 4
    flags = sum(_FLAGS[each.kind](each) for each in layers if each.kind in _FLAGS)
    return Counted(int(macs), words - flags)


def _operation(layer: Layer, sizes: Mapping[str, Sizes]) -> _Operation:
    return _Operation(layer, tuple(sizes[name] for name in layer.inputs), sizes[layer.outputs[0]])
