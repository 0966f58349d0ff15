"""Run operators on numbers: the arithmetic of sizes, in Python, with free sizes as symbols."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from compressor.loading.onnx.contents import TYPES
from compressor.loading.onnx.operators.invocation import Entry, NodeCall
from compressor.loading.onnx.small_numbers import MOST, Array, Numbers, each, numbers, of_one

INT, BOOL = torch.int64, torch.bool


class TooManyError(Exception):
    """The error raised where a result has more elements than are carried as numbers."""


def _given(call: NodeCall, position: int) -> Numbers:
    value = call.raw(position)
    if not isinstance(value, Numbers):
        raise call.refusal(f"lacks its input {position}")
    return value


def _axis(call: NodeCall, rank: int, default: int = 0) -> int:
    return int(call.get("axis", default)) % max(rank, 1)


def each_of(function: Callable[..., Any], dtype: torch.dtype | None = None) -> Entry:
    """Make an entry: out = f(a, b, ...), element by element, broadcast."""

    def entry(call: NodeCall) -> Numbers:
        given = [_given(call, i) for i in range(len(call.inputs))]
        return numbers(each(function, *(g.array for g in given)), dtype or given[0].dtype)

    return entry


def _divide(call: NodeCall) -> Numbers:
    a, b = _given(call, 0), _given(call, 1)
    function = (lambda x, y: x / y) if a.dtype.is_floating_point else _towards_zero
    return numbers(each(function, a.array, b.array), a.dtype)


def _towards_zero(x: Any, y: Any) -> Any:
    if isinstance(x, int) and isinstance(y, int):
        return math.trunc(x / y) if (x < 0) != (y < 0) else abs(x) // abs(y)
    return x // y


def _cast(call: NodeCall) -> Numbers:
    given, kind = _given(call, 0), call.get("to")
    if kind not in TYPES:
        raise call.refusal("makes a type that is not read")
    dtype = TYPES[kind]
    if dtype.is_floating_point:
        convert: Callable[[Any], Any] = _float
    elif dtype == BOOL:
        convert = bool
    else:
        convert = _whole
    return numbers(each(convert, given.array), dtype)


def _float(value: Any) -> Any:
    return torch.sym_float(value) if isinstance(value, torch.SymInt) else float(value)


def _whole(value: Any) -> Any:
    if isinstance(value, torch.SymInt):
        return value
    return torch.sym_int(value) if isinstance(value, torch.SymFloat) else int(value)


def _rounded(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def rounded(value: Any) -> Any:
        if isinstance(value, torch.SymFloat):
            return torch.sym_float(function(value))
        return float(function(value))

    return rounded


def _gather(call: NodeCall) -> Numbers:
    data, index = _given(call, 0), _given(call, 1)
    taken = np.take(data.array, index.array.astype(np.int64), _axis(call, data.array.ndim))
    return numbers(np.asarray(taken, object), data.dtype)


def _concatenate(call: NodeCall) -> Numbers:
    given = [_given(call, i) for i in range(len(call.inputs))]
    axis = _axis(call, given[0].array.ndim)
    return numbers(np.concatenate([g.array for g in given], axis), given[0].dtype)


def _unsqueeze(call: NodeCall) -> Numbers:
    data, axes = _given(call, 0), call.numbers(1)
    rank = data.array.ndim + len(axes)
    return Numbers(np.expand_dims(data.array, tuple(int(a) % rank for a in axes)), data.dtype)


def _squeeze(call: NodeCall) -> Numbers:
    data = _given(call, 0)
    axes = call.given_numbers(1)
    chosen = None if axes is None else tuple(int(a) for a in axes)
    return numbers(_as_array(np.squeeze(data.array, chosen)), data.dtype)


def _as_array(value: Any) -> Array:
    return value if isinstance(value, np.ndarray) else of_one(value)


def _slice(call: NodeCall) -> Numbers:
    data = _given(call, 0)
    starts, ends = call.numbers(1), call.numbers(2)
    axes = call.given_numbers(3, list(range(len(starts))))
    steps = call.given_numbers(4, [1] * len(starts))
    places = [slice(None)] * data.array.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = data.array.shape[axis]
        last = None if step < 0 and end < -size else int(end)
        places[axis] = slice(int(start), last, int(step))
    return numbers(data.array[tuple(places)], data.dtype)


def _split(call: NodeCall) -> tuple[Numbers, ...]:
    data = _given(call, 0)
    axis = _axis(call, data.array.ndim)
    sizes = call.given_numbers(1)
    size, parts = data.array.shape[axis], call.get("num_outputs")
    chunk = math.ceil(size / parts)
    cuts = np.cumsum(sizes)[:-1] if sizes else [chunk * i for i in range(1, parts)]
    return tuple(numbers(p, data.dtype) for p in np.split(data.array, list(cuts), axis))


def _where(call: NodeCall) -> Numbers:
    condition, a, b = (_given(call, i) for i in range(3))
    return numbers(each(lambda c, x, y: x if c else y, condition.array, a.array, b.array), a.dtype)


def _reshape(call: NodeCall) -> Numbers:
    data, shape = _given(call, 0), [int(size) for size in call.numbers(1)]
    if not call.get("allowzero", 0):
        shape = [data.array.shape[i] if size == 0 else size for i, size in enumerate(shape)]
    return Numbers(data.array.reshape(shape), data.dtype)


def _transpose(call: NodeCall) -> Numbers:
    data = _given(call, 0)
    return Numbers(np.transpose(data.array, call.get("perm")), data.dtype)


def _constant_of_shape(call: NodeCall) -> Numbers:
    value = call.get("value")
    array = np.zeros(1, np.float32) if value is None else value
    shape = _bounded(call.numbers(0))
    dtype = torch.from_numpy(np.zeros(1, array.dtype)).dtype
    return numbers(np.full(shape, array.reshape(-1)[0].item(), object), dtype)


def _bounded(shape: list[Any]) -> list[int]:
    if any(not isinstance(size, int) for size in shape) or math.prod(shape) > MOST:
        raise TooManyError
    return [int(size) for size in shape]


def _expand(call: NodeCall) -> Numbers:
    data, shape = _given(call, 0), _bounded(call.numbers(1))
    sizes = _bounded(list(np.broadcast_shapes(data.array.shape, tuple(shape))))
    return Numbers(np.broadcast_to(data.array, sizes).copy(), data.dtype)


def _tile(call: NodeCall) -> Numbers:
    data, repeats = _given(call, 0), call.numbers(1)
    _bounded([size * int(r) for size, r in zip(data.array.shape, repeats, strict=True)])
    return Numbers(np.tile(data.array, [int(r) for r in repeats]), data.dtype)


def _range(call: NodeCall) -> Numbers:
    start, limit, step = (call.number(i) for i in range(3))
    if not all(isinstance(value, int | float) for value in (start, limit, step)) or step == 0:
        raise TooManyError
    count = max(0, math.ceil((limit - start) / step))
    _bounded([count])
    return numbers([start + i * step for i in range(count)], _given(call, 0).dtype)


def _reduce(function: Callable[[Any, Any], Any]) -> Entry:
    def entry(call: NodeCall) -> Numbers:
        data = _given(call, 0)
        axes = call.given_numbers(1) or list(range(data.array.ndim))
        keep = bool(call.get("keepdims", 1))
        reduced = data.array
        for axis in sorted((int(a) % data.array.ndim for a in axes), reverse=True):
            parts = [np.take(reduced, i, axis) for i in range(reduced.shape[axis])]
            total = parts[0]
            for part in parts[1:]:
                total = each(function, _as_array(total), _as_array(part))
            total = _as_array(total)
            reduced = np.expand_dims(total, axis) if keep else total
        return numbers(reduced, data.dtype)

    return entry


def _nonzero(call: NodeCall) -> Numbers:
    flags = each(bool, _given(call, 0).array).astype(bool)
    return numbers([[int(v) for v in row] for row in np.nonzero(flags)] or [[]])


def _shape(call: NodeCall) -> Numbers:
    return _some_of(list(_given(call, 0).array.shape), call)


def _some_of(sizes: list[Any], call: NodeCall) -> Numbers:
    start, end = call.get("start", 0), call.get("end")
    return numbers(sizes[start:end])


def _size(call: NodeCall) -> Numbers:
    return numbers(math.prod(_given(call, 0).array.shape))


def _identity(call: NodeCall) -> Any:
    return call.raw(0)


ENTRIES: dict[str, Entry] = {
    "Abs": each_of(abs),
    "Add": each_of(lambda a, b: a + b),
    "And": each_of(lambda a, b: bool(a) and bool(b), BOOL),
    "Cast": _cast,
    "Ceil": each_of(_rounded(math.ceil)),
    "Concat": _concatenate,
    "ConstantOfShape": _constant_of_shape,
    "Div": _divide,
    "Equal": each_of(lambda a, b: bool(a == b), BOOL),
    "Expand": _expand,
    "Floor": each_of(_rounded(math.floor)),
    "Gather": _gather,
    "Greater": each_of(lambda a, b: bool(a > b), BOOL),
    "GreaterOrEqual": each_of(lambda a, b: bool(a >= b), BOOL),
    "Identity": _identity,
    "Less": each_of(lambda a, b: bool(a < b), BOOL),
    "LessOrEqual": each_of(lambda a, b: bool(a <= b), BOOL),
    "Max": each_of(lambda *values: max(values)),
    "Min": each_of(lambda *values: min(values)),
    "Mod": each_of(lambda a, b: a % b),
    "Mul": each_of(lambda a, b: a * b),
    "Neg": each_of(lambda a: -a),
    "NonZero": _nonzero,
    "Not": each_of(lambda a: not a, BOOL),
    "Or": each_of(lambda a, b: bool(a) or bool(b), BOOL),
    "Pow": each_of(lambda a, b: a**b),
    "Range": _range,
    "ReduceMax": _reduce(lambda a, b: max(a, b)),
    "ReduceMin": _reduce(lambda a, b: min(a, b)),
    "ReduceProd": _reduce(lambda a, b: a * b),
    "ReduceSum": _reduce(lambda a, b: a + b),
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "Split": _split,
    "Sqrt": each_of(lambda a: a**0.5),
    "Squeeze": _squeeze,
    "Sub": each_of(lambda a, b: a - b),
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
"""Operators that are run on numbers where all that they are given is numbers."""
