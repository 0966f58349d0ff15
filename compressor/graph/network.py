"""Hold the analysed network as a record: dimensions, groups, each node's literals, and costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from compressor.graph.axes import Axis, Bools, Dim, size_after
from compressor.records import Group, Protection

Shape = tuple[Dim, ...]
Sizes = Mapping[Axis, int]

BATCH = 1_000_003
"""The number that stands for the symbolic batch. It is a prime larger than any width, so that a
size that grows with the batch is recognised by being divisible by it."""


def size_of(size: Any, symbol: int = BATCH) -> int:
    """Return a traced size as a number, with the given one in place of every symbol."""
    if isinstance(size, int):
        return size
    expression = size.node.expr
    return int(expression.subs(dict.fromkeys(expression.free_symbols, symbol)))


def with_batch(size: int, batch: int) -> int:
    """Replace `BATCH` in a size by the number of samples.

    It is that of one dimension: in a product of many it cannot be told from what it is times.
    """
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
    """A place where channels are summed over: a parameter's dimension meets an activation's.

    The activation's positions run along the parameter's, once or, in a grouped convolution, several
    times one after the other.

    Attributes:
        node: Name of the program's node.
        tensor: Name of the parameter.
        dim: The parameter's dimension.
        activation: Name of the node that makes the activation.
        at: The activation's dimension.
    """

    node: str
    tensor: str
    dim: int
    activation: str
    at: int


@dataclass(frozen=True)
class Work:
    """Multiply-adds of one call of an operator, as a product of dimensions.

    Attributes:
        operator: Name of the overload, as in the table of rules.
        layer: Path of the module that calls it; "" is the network.
        dims: The dimensions whose sizes are multiplied.
        node: Name of its node.
    """

    operator: str
    layer: str
    dims: Shape
    node: str = ""


@dataclass(frozen=True)
class Cost:
    """Multiply-adds, parameters and channels of any choice, computed from the dimensions alone.

    Attributes:
        work: What each operator multiplies and adds, call by call.
        weights: The dimensions of each parameter, tied ones once.
        tensors: The parameters' names, in the same order.
        widths: The channels that each layer produces.
        batch: Number of samples that the work is for; None where it is symbolic.
    """

    work: tuple[Work, ...]
    weights: tuple[Shape, ...]
    widths: tuple[Dim, ...]
    batch: int | None
    tensors: tuple[str, ...] = ()

    def of(self, unit: str, sizes: Sizes | None = None) -> int:
        """Return the cost in a unit ("macs", "params" or "channels"), with these sizes of axes."""
        return int(getattr(self, unit)(sizes or {}))

    def macs(self, sizes: Sizes | None = None) -> int:
        """Return the multiply-adds of one sample, with these sizes of axes."""
        return sum(self._by(lambda work: "", sizes).values())

    def macs_by_layer(self, sizes: Sizes | None = None) -> dict[str, int]:
        """Return the multiply-adds of one sample by the path of the layer that asks for them."""
        return self._by(lambda work: work.layer, sizes)

    def macs_by_node(self, sizes: Sizes | None = None) -> dict[str, int]:
        """Return the multiply-adds of one sample by the name of the node that does them."""
        return self._by(lambda work: work.node, sizes)

    def macs_by_operator(self, sizes: Sizes | None = None) -> dict[str, int]:
        """Return the multiply-adds of one sample by the operator that does them."""
        return self._by(lambda work: work.operator, sizes)

    def _by(self, key: Callable[[Work], str], sizes: Sizes | None) -> dict[str, int]:
        counts: dict[str, int] = {}
        for work in self.work:
            count = self._one_sample(volume(work.dims, sizes or {}))
            counts[key(work)] = counts.get(key(work), 0) + count
        return {name: n if self.batch is None else n // self.batch for name, n in counts.items()}

    def _one_sample(self, count: int) -> int:
        while self.batch is None and count and count % BATCH == 0:
            count //= BATCH  # more than once where samples meet samples
        return count

    def params(self, sizes: Sizes | None = None) -> int:
        """Return the number of elements in all parameters, with these sizes of axes."""
        return sum(volume(shape, sizes or {}) for shape in self.weights)

    def channels(self, sizes: Sizes | None = None) -> int:
        """Return the number of channels that layers with weights produce, with these sizes."""
        return sum(size_after(width, sizes or {}) for width in self.widths)


def volume(shape: Iterable[Dim], sizes: Sizes) -> int:
    """Return how many numbers a tensor of a shape has when axes have these sizes."""
    return math.prod(size_after(dim, sizes) for dim in shape)


@dataclass(frozen=True)
class Uncounted:
    """An operator that may do much work but has no formula for its multiply-adds.

    Attributes:
        operator: Its name.
        calls: How often it is called.
        places: The layers that call it.
    """

    operator: str
    calls: int
    places: tuple[str, ...]


@dataclass(frozen=True)
class Unread:
    """Layers that are computed although no output depends on them.

    Attributes:
        layers: Their paths.
        macs: Their multiply-adds for one sample.
    """

    layers: tuple[str, ...] = ()
    macs: int = 0


@dataclass(frozen=True)
class Tied:
    """Groups whose numbers of channels keep one proportion, since a configuration has one number.

    Attributes:
        groups: Their names.
        times: How many of its channels each of them loses at a time.
        by: The names of the configuration's numbers.
    """

    groups: tuple[str, ...]
    times: tuple[int, ...]
    by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Router:
    """Where the experts of a mixture are chosen and used.

    Attributes:
        choices: Names of the nodes that choose some of them for each row.
        products: Names of the nodes that multiply rows with those that are chosen.
    """

    choices: tuple[str, ...]
    products: tuple[str, ...]


@dataclass(frozen=True)
class Network:
    """The result of the analysis: dimensions, groups of coupled channels, and costs of a network.

    Attributes:
        groups: The groups of coupled channels.
        protections: What must stay whole, with the reason and the place.
        tensors: The dimensions of each parameter, buffer and constant by name.
        aliases: Names of tied tensors -> the name that stands for them.
        axes: Group name -> the group's axis.
        nodes: Node name -> how its arguments follow its dimensions.
        cost: Costs of any choice.
        linked: Groups that user code takes to be of one size.
        level: Groups of which operators want equal numbers of channels, each its own ones.
        tied: Groups whose widths the configuration of the network's class holds as one, where only
            such widths are wanted.
        remarks: What the user should know of how layers' dimensions depend on each other.
        consumers: The places of the program that sum over channels of an activation.
        routers: Group of experts, by name -> where they are chosen and used.
        uncounted: Work that `cost` leaves out.
        unread: The part of `cost` that is thrown away.
    """

    groups: tuple[Group, ...]
    protections: tuple[Protection, ...]
    tensors: Mapping[str, Shape]
    aliases: Mapping[str, str]
    axes: Mapping[str, Axis]
    nodes: Mapping[str, Spelling]
    cost: Cost
    linked: tuple[tuple[str, ...], ...] = ()
    level: tuple[tuple[str, ...], ...] = ()
    tied: tuple[Tied, ...] = ()
    remarks: tuple[str, ...] = ()
    consumers: tuple[Consumer, ...] = ()
    routers: Mapping[str, Router] = field(default_factory=dict)
    uncounted: tuple[Uncounted, ...] = ()
    unread: Unread = Unread()

    def sizes(self, kept: Mapping[str, int]) -> dict[Axis, int]:
        """Turn counts by group name into sizes by axis."""
        return {self.axes[name]: count for name, count in kept.items()}

    def masks(self, keep: Mapping[str, Iterable[int]]) -> dict[Axis, Bools]:
        """Turn kept indices by group name into keep-masks by axis, [size] bool."""
        import numpy as np

        masks = {}
        for name, kept in keep.items():
            masks[self.axes[name]] = np.isin(np.arange(self.axes[name].size), list(kept))
        return masks

    def silenced(self, names: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """Return per tensor the dimensions where zeros stand for dropping these groups' channels.

        These are the dimensions that are summed over, and all of a group's dimensions where zeros
        are not exact: what two activations contract, or a statistic sees, is silenced where it is
        made.
        """
        chosen, found = set(names), dict[str, set[int]]()
        for group in self.groups:
            for member in group.members if group.name in chosen else ():
                if member.contracted or not group.exact:
                    found.setdefault(member.tensor, set()).add(member.dim)
        return {name: tuple(sorted(dims)) for name, dims in sorted(found.items())}
