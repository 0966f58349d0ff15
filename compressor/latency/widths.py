"""Find the widths of an axis that the kernels of its layers run well."""

from __future__ import annotations

from collections.abc import Iterable
from math import gcd

from compressor.graph.axes import Axis, Dim, Product, Sum
from compressor.latency.latency_table import LatencyTable
from compressor.latency.layers import Layer, by_axis


def width_steps(
    layers: Iterable[Layer], table: LatencyTable, axes: Iterable[Axis]
) -> dict[Axis, int]:
    """Return, per axis, the number of whose multiples its width should be, by the table's steps.

    An axis too narrow for two of its layers' steps has half of a step, or half of that.
    """
    of_axis = by_axis(layers)
    return {axis: _fitting(axis, step_of(axis, of_axis.get(axis, ()), table)) for axis in axes}


def step_of(axis: Axis, layers: Iterable[Layer], table: LatencyTable) -> int:
    """Return the largest step of the layers, counted in indices of the axis."""
    steps = [
        step // gcd(step, inner)
        for layer in layers
        for name in layer.free
        for step in [table.step(layer.kind, name).every]
        for dim in layer.extents[name].dims
        for inner in _per_index(dim, axis)
    ]
    return max(steps, default=1)


def _fitting(axis: Axis, step: int) -> int:
    while step > 1 and axis.size < 2 * step:
        step = max(1, step // 2)
    return step


def _per_index(dim: Dim, axis: Axis) -> list[int]:
    """Return how many positions of the dimension one index of the axis has, wherever it stands."""
    if dim is axis:
        return [1]
    if isinstance(dim, Sum):
        return [count for part in dim.parts for count in _per_index(part, axis)]
    if isinstance(dim, Product):
        return [
            count * dim.size // part.size for part in dim.parts for count in _per_index(part, axis)
        ]
    return []
