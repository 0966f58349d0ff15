"""Run operators that put values elsewhere: reshape, transpose, join, cut, pad."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.loading.onnx.operators.invocation import Entry, NodeCall
from compressor.loading.onnx.small_numbers import Numbers, numbers


def shape(call: NodeCall) -> Numbers:
    """Shape: the sizes as numbers, free ones symbolic."""
    return numbers(list(call.x.shape)[call.get("start", 0) : call.get("end")])


def size(call: NodeCall) -> Numbers:
    """Size: the number of elements as a number."""
    return numbers(math.prod(call.x.shape))


def reshape(call: NodeCall) -> Tensor:
    """Reshape: 0 copies a size (unless zeros are allowed), -1 is what is left."""
    x, wanted = call.x, call.numbers(1)
    if not call.get("allowzero", 0):
        wanted = [x.shape[i] if _is(size, 0) else size for i, size in enumerate(wanted)]
    return x.reshape(wanted)


def _is(size: Any, value: int) -> bool:
    return isinstance(size, int) and size == value


def flatten(call: NodeCall) -> Tensor:
    """Flatten: to a matrix, cut at an axis."""
    x, axis = call.x, call.get("axis", 1)
    axis = axis + call.x.dim() if axis < 0 else axis
    if axis == 0:
        return x.reshape(1, -1)
    if axis == x.dim():
        return x.reshape(-1, 1)
    lead = x if axis == 1 else x.flatten(0, axis - 1)
    return lead if lead.dim() == 2 else lead.flatten(1)


def transpose(call: NodeCall) -> Tensor:
    """Transpose: dimensions in another order, reversed where none is given."""
    return call.x.permute(call.get("perm") or tuple(reversed(range(call.x.dim()))))


def squeeze(call: NodeCall) -> Tensor:
    """Squeeze: the listed sizes of 1 go, or all of them."""
    axes = call.given_numbers(1)
    return call.x.squeeze() if axes is None else call.x.squeeze([int(axis) for axis in axes])


def unsqueeze(call: NodeCall) -> Tensor:
    """Unsqueeze: sizes of 1 are put in."""
    x, axes = call.x, call.numbers(1)
    rank = x.dim() + len(axes)
    for axis in sorted(int(a) % rank for a in axes):
        x = x.unsqueeze(axis)
    return x


def expand(call: NodeCall) -> Tensor:
    """Expand: both shapes are broadcast."""
    x, wanted = call.x, call.numbers(1)
    rank = max(x.dim(), len(wanted))
    own = [1] * (rank - x.dim()) + list(x.shape)
    asked = [1] * (rank - len(wanted)) + wanted
    return x.expand([a if _is(b, 1) else b for a, b in zip(own, asked, strict=True)])


def tile(call: NodeCall) -> Tensor:
    """Tile: repeated along each dimension."""
    return call.x.repeat(call.numbers(1))


def concatenate(call: NodeCall) -> Tensor:
    """Concat: along an axis."""
    return torch.cat([call.tensor(i) for i in range(len(call.inputs))], call.get("axis"))


def split(call: NodeCall) -> tuple[Tensor, ...]:
    """Split: into pieces of the sizes given, or equal ones."""
    x, axis, sizes = call.x, call.get("axis", 0), call.given_numbers(1)
    if sizes is None:
        chunk = -(-x.shape[axis] // call.get("num_outputs"))
        return torch.split(x, chunk, axis)
    return torch.split(x, sizes, axis)


def cut(call: NodeCall) -> Tensor:
    """Slice: from starts to ends along axes; backwards it is turned first."""
    x, starts, ends = call.x, call.numbers(1), call.numbers(2)
    axes = call.given_numbers(3, list(range(len(starts))))
    steps = call.given_numbers(4, [1] * len(starts))
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        x = _cut(x, int(axis) % x.dim(), start, end, int(step))
    return x


LAST = 10**9
"""The least of what exporters write for "to the end": no dimension is as large."""


def _cut(x: Tensor, axis: int, start: Any, end: Any, step: int) -> Tensor:
    if step > 0:
        last = None if isinstance(end, int) and end >= LAST else end
        places = [slice(None)] * axis + [slice(start, last, step)]
        return x if _is(start, 0) and last is None and step == 1 else x[tuple(places)]
    size = x.shape[axis]
    first = min(start, size - 1) if start >= 0 else start + size
    last = -1 if end < -size else (end + size if end < 0 else end)
    turned = torch.flip(x, [axis])
    places = [slice(None)] * axis + [slice(size - 1 - first, size - 1 - last, -step)]
    return turned[tuple(places)]


def pad(call: NodeCall) -> Tensor:
    """Pad: by a value, by reflection or by the edge."""
    x, mode = call.x, call.get("mode", "constant")
    axes = call.given_numbers(3, list(range(x.dim())))
    pads = call.numbers(1)
    if len(pads) != 2 * len(axes):
        raise call.refusal(f"has {len(pads)} pads for {len(axes)} dimensions")
    before = {int(a) % x.dim(): pads[i] for i, a in enumerate(axes)}
    after = {int(a) % x.dim(): pads[len(axes) + i] for i, a in enumerate(axes)}
    touched = [
        d for d in range(x.dim()) if not (_is(before.get(d, 0), 0) and _is(after.get(d, 0), 0))
    ]
    if not touched:
        return x
    widths = [
        width
        for d in range(x.dim() - 1, touched[0] - 1, -1)
        for width in (before.get(d, 0), after.get(d, 0))
    ]
    if mode == "constant":
        return F.pad(x, widths, value=float(call.number(2, 0.0)))
    if mode not in BY_PLACES:
        raise call.refusal(f"pads by {mode}")
    kind, place_of = BY_PLACES[mode]
    full = 2 * max(1, x.dim() - 2)
    if kind and 2 <= x.dim() <= 5 and len(widths) <= full:
        return F.pad(x, widths + [0] * (full - len(widths)), mode=kind)
    for d in touched:
        places = range(-before.get(d, 0), x.shape[d] + after.get(d, 0))
        index = torch.tensor([place_of(i, x.shape[d]) for i in places], device=x.device)
        x = torch.index_select(x, d, index)
    return x


def _mirrored(place: int, size: int) -> int:
    """Return which of `size` places a place outside of them mirrors, the ends standing once."""
    place %= max(1, 2 * size - 2)
    return min(place, 2 * size - 2 - place)


BY_PLACES: Mapping[str, tuple[str, Callable[[int, int], int]]] = {
    "reflect": ("reflect", _mirrored),
    "edge": ("replicate", lambda place, size: min(max(place, 0), size - 1)),
    "wrap": ("circular", lambda place, size: place % size),
}
"""Mode of padding that repeats values -> torch's word for it, and which place among so many stands
at a place outside of them."""


def depth_to_space(call: NodeCall) -> Tensor:
    """DepthToSpace: blocks of channels become blocks of pixels, in one of two orders."""
    x, block = call.x, call.get("blocksize")
    if call.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, block)
    n, c, h, w = x.shape
    parts = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(n, c // block**2, h * block, w * block)


def space_to_depth(call: NodeCall) -> Tensor:
    """SpaceToDepth: blocks of pixels become blocks of channels."""
    x, block = call.x, call.get("blocksize")
    n, c, h, w = x.shape
    order = (0, 1, 3, 5, 2, 4) if call.get("mode", "DCR") == "CRD" else (0, 3, 5, 1, 2, 4)
    parts = x.reshape(n, c, h // block, block, w // block, block).permute(order)
    return parts.reshape(n, c * block**2, h // block, w // block)


def triangle(call: NodeCall) -> Tensor:
    """Trilu: the upper or lower triangle."""
    function = torch.triu if call.get("upper", 1) else torch.tril
    return function(call.x, int(call.number(1, 0)))


ENTRIES: dict[str, Entry] = {
    "Concat": concatenate,
    "DepthToSpace": depth_to_space,
    "Expand": expand,
    "Flatten": flatten,
    "Pad": pad,
    "Reshape": reshape,
    "Shape": shape,
    "Size": size,
    "Slice": cut,
    "SpaceToDepth": space_to_depth,
    "Split": split,
    "Squeeze": squeeze,
    "Tile": tile,
    "Transpose": transpose,
    "Trilu": triangle,
    "Unsqueeze": unsqueeze,
}
