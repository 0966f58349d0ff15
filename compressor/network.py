"""The analysed network as a record: dimensions, groups, what each node spells, what it costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from compressor.axes import Axis, Bools, Dim, leaves, size_after
from compressor.records import Group, Protection

Shape = tuple[Dim, ...]
Sizes = Mapping[Axis, int]

BATCH = 1_000_003
"""The number that stands for the symbolic batch: a prime larger than any width, so that a size
that grows with the batch is known by being divisible by it."""


def size_of(size: Any) -> int:
    """A traced size as a number: a symbolic one with `BATCH` for every symbol in it."""
    if isinstance(size, int):
        return size
    expression = size.node.expr
    return int(expression.subs(dict.fromkeys(expression.free_symbols, BATCH)))


def with_batch(size: int, batch: int) -> int:
    """A size that may hold `BATCH`, with the number of samples in its place."""
    times, rest = divmod(size + BATCH // 2, BATCH)
    return size if not times else with_batch(times, batch) * batch + rest - BATCH // 2


@dataclass(frozen=True)
class Spelling:
    """How one node's arguments follow its dimensions (see `rules.call.Equations`)."""

    literals: Mapping[str, Any]
    target: str
    pins: Mapping[str, tuple[Any, Dim]]
    outputs: tuple[Shape, ...]


@dataclass(frozen=True)
class Consumer:
    """Where channels are summed over: at a node, dimension `dim` of a parameter meets dimension
    `at` of an activation.

    `node` and `activation` are names of the program's nodes, `tensor` is the parameter's. The
    activation's positions run along the parameter's, once or, in a grouped convolution, several
    times one after the other.
    """

    node: str
    tensor: str
    dim: int
    activation: str
    at: int


@dataclass(frozen=True)
class Cost:
    """Multiply-adds, parameters and channels of any choice, from the dimensions alone.

    `products` are the nodes' dimensions whose sizes multiply to MACs, `weights` the parameters'
    dimensions (tied ones once), `widths` the channels that layers produce; `batch` is the number
    of samples that the products are for, or None where it is the symbolic one.
    """

    products: tuple[Shape, ...]
    weights: tuple[Shape, ...]
    widths: tuple[Dim, ...]
    batch: int | None

    def of(self, unit: str, sizes: Sizes | None = None) -> int:
        """The cost in "macs", "params" or "channels" when the axes in `sizes` have those sizes."""
        return int(getattr(self, unit)(sizes or {}))

    def macs(self, sizes: Sizes | None = None) -> int:
        """Multiply-adds of one sample."""
        counts = [self._samples(_volume(product, sizes or {})) for product in self.products]
        return sum(counts) if self.batch is None else sum(counts) // self.batch

    def _samples(self, count: int) -> int:
        while self.batch is None and count and count % BATCH == 0:
            count //= BATCH  # more than once where samples meet samples
        return count

    def params(self, sizes: Sizes | None = None) -> int:
        """Numbers in the parameters."""
        return sum(_volume(shape, sizes or {}) for shape in self.weights)

    def channels(self, sizes: Sizes | None = None) -> int:
        """Channels produced by all layers with weights."""
        return sum(size_after(width, sizes or {}) for width in self.widths)


def _volume(shape: Shape, sizes: Sizes) -> int:
    return math.prod(size_after(dim, sizes) for dim in shape)


@dataclass(frozen=True)
class Uncounted:
    """An operator that may do much work and has no formula for it, how often it is called and by
    which layers."""

    operator: str
    calls: int
    places: tuple[str, ...]


@dataclass(frozen=True)
class Unread:
    """Layers that are computed although no output depends on them, and their multiply-adds."""

    layers: tuple[str, ...] = ()
    macs: int = 0


@dataclass(frozen=True)
class Network:
    """What the analysis found.

    `tensors` are the dimensions of each parameter, buffer and constant by name, `aliases` maps the
    names of tied tensors to the one that stands for them, `axes` are the groups' by group name,
    `nodes` the spellings by node name, `linked` the groups that user code takes to be of one size,
    `consumers` the places of the program that sum over channels of an activation, `uncounted` the
    work that `cost` leaves out, `unread` the part of it that is thrown away.
    """

    groups: tuple[Group, ...]
    protections: tuple[Protection, ...]
    tensors: Mapping[str, Shape]
    aliases: Mapping[str, str]
    axes: Mapping[str, Axis]
    nodes: Mapping[str, Spelling]
    cost: Cost
    linked: tuple[tuple[str, ...], ...] = ()
    consumers: tuple[Consumer, ...] = ()
    uncounted: tuple[Uncounted, ...] = ()
    unread: Unread = Unread()

    def sizes(self, kept: Mapping[str, int]) -> dict[Axis, int]:
        """Group name -> count, as axis -> size."""
        return {self.axes[name]: count for name, count in kept.items()}

    def masks(self, keep: Mapping[str, Iterable[int]]) -> dict[Axis, Bools]:
        """Group name -> kept indices, as axis -> mask."""
        import numpy as np

        masks = {}
        for name, kept in keep.items():
            masks[self.axes[name]] = np.isin(np.arange(self.axes[name].size), list(kept))
        return masks

    def silenced(self, names: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """Per tensor the dimensions at which zeros stand for dropping channels of these groups:
        those that are summed over, and everywhere for groups that this is not exact for (what two
        activations contract, or a statistic sees, falls silent where it is made)."""
        chosen, found = set(names), dict[str, set[int]]()
        for group in self.groups:
            for member in group.members if group.name in chosen else ():
                if member.contracted or not group.exact:
                    found.setdefault(member.tensor, set()).add(member.dim)
        return {name: tuple(sorted(dims)) for name, dims in sorted(found.items())}

    def reach(self, axis: Axis) -> list[tuple[str, int]]:
        """Every (tensor, dimension) whose expression has the axis in it."""
        return [
            (name, i)
            for name, shape in self.tensors.items()
            for i, dim in enumerate(shape)
            if any(leaf is axis for leaf in leaves(dim))
        ]
