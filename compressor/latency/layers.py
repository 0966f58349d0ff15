"""Read a program's nodes as layers: what the runtime has to compute, and how large it is.

Layers with the same signature cost the same at the same sizes, so they share measurements.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch.fx import Node

from compressor.errors import UsageError
from compressor.graph.axes import Axis, Dim, leaves
from compressor.graph.network import Network, Shape, Sizes, size_of, volume, with_batch
from compressor.graph.programs.nodes import base_name
from compressor.latency.fusing import computed_nodes
from compressor.latency.operands import Operands
from compressor.latency.reading import reading
from compressor.records import Trace


@dataclass(frozen=True)
class Extent:
    """One size of a layer as an expression: the product of some dimensions, over that of others."""

    dims: tuple[Dim, ...]
    over: tuple[Dim, ...] = ()

    def size(self, sizes: Sizes) -> int:
        """Return the number when the axes in `sizes` have those sizes; at least one."""
        return max(1, volume(self.dims, sizes) // max(1, volume(self.over, sizes)))

    @property
    def leaves(self) -> Iterator[Axis]:
        """The axes on which the size depends, with repetitions."""
        for dim in (*self.dims, *self.over):
            yield from leaves(dim)


@dataclass(frozen=True)
class Layer:
    """One node of the program, as far as its time depends on it.

    Attributes:
        name: The node's name.
        kind: What has to be computed, a row of `kernels.KERNELS`.
        extents: The sizes that the kind names, as expressions.
        literals: Numbers and words that no pruning changes (stride, padding).
        axes: The network's axes on which a size depends, in order.
    """

    name: str
    kind: str
    extents: Mapping[str, Extent]
    literals: Mapping[str, Any] = field(default_factory=dict)
    axes: tuple[Axis, ...] = ()

    def sizes(self, sizes: Sizes | None = None) -> dict[str, int]:
        """Return every size of the kind when the axes in `sizes` have those sizes."""
        return {name: extent.size(sizes or {}) for name, extent in self.extents.items()}

    @cached_property
    def full(self) -> dict[str, int]:
        """The sizes when nothing is pruned."""
        return self.sizes()

    @cached_property
    def free(self) -> tuple[str, ...]:
        """The names of the sizes that pruning may change."""
        axes = set(self.axes)
        return tuple(
            name
            for name, extent in self.extents.items()
            if self.full[name] > 1 and any(leaf in axes for leaf in extent.leaves)
        )

    @cached_property
    def signature(self) -> str:
        """A line that is the same for layers that cost the same at every choice of widths."""
        stars = {name: "*" if name in self.free else "" for name in self.extents}
        sizes = [f"{name}={stars[name]}{self.full[name]}" for name in self.extents]
        words = [f"{name}={_text(value)}" for name, value in sorted(self.literals.items())]
        return " ".join([self.kind, *sizes, *words])


def _text(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def by_axis(layers: Iterable[Layer]) -> dict[Axis, tuple[Layer, ...]]:
    """Return, per axis, the layers that get faster or slower with it."""
    of_axis: dict[Axis, list[Layer]] = {}
    for layer in layers:
        for axis in layer.axes:
            of_axis.setdefault(axis, []).append(layer)
    return {axis: tuple(those) for axis, those in of_axis.items()}


def layers_of(trace: Trace, network: Network, batch: int = 1) -> tuple[Layer, ...]:
    """Return the program's layers for `batch` samples, in the program's order.

    Nodes that cost nothing have none: views, what is computed from weights alone, and what the
    runtime does within the operator before (see `fusing`).

    Raises:
        UsageError: The program has a static batch of another size.
    """
    if trace.batch_symbol is None and network.cost.batch != batch:
        raise UsageError(
            f"the network was traced for a batch of {trace.batch} and no other, not {batch}",
            consequence="its latency was not modelled",
            next_step=f"ask for a batch of {trace.batch}",
        )
    free = set(network.axes.values())
    shapes = _shapes(trace, network)
    layers = []
    for node, then in computed_nodes(trace.program):
        read = reading(Operands(node, shapes, tuple(map(base_name, then))))
        if read is not None:
            extents = {name: _extent(dims, batch) for name, dims in read.sizes.items()}
            axes = dict.fromkeys(a for e in extents.values() for a in e.leaves if a in free)
            literals = {name: _literal(value, batch) for name, value in read.literals.items()}
            layers.append(Layer(node.name, read.kind, extents, literals, tuple(axes)))
    return tuple(layers)


def _extent(dims: tuple[Any, ...], batch: int) -> Extent:
    """Make an extent of a tuple of dimensions, or of a pair of such tuples: first over second."""
    times, over = dims if dims and isinstance(dims[0], tuple) else (dims, ())
    return Extent(*(tuple(_with_batch(dim, batch) for dim in part) for part in (times, over)))


def _with_batch(dim: Dim, batch: int) -> Dim:
    """Return the expression with the number of samples in place of the symbolic batch."""
    if not isinstance(dim, Axis):
        return type(dim)(tuple(_with_batch(part, batch) for part in dim.parts))
    size = with_batch(dim.size, batch)
    return dim if size == dim.size else Axis(size)


def _literal(value: Any, batch: int) -> Any:
    """Return a literal with the number of samples in place of the symbolic batch in its numbers."""
    if isinstance(value, tuple):
        return tuple(_literal(item, batch) for item in value)
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return with_batch(value, batch) if is_number else value


def _shapes(trace: Trace, network: Network) -> dict[str, tuple[Shape, ...]]:
    """Return the dimensions of every node's results, by the node's name."""
    shapes: dict[str, tuple[Shape, ...]] = {}
    specs = {spec.arg.name: spec.target for spec in trace.program.graph_signature.input_specs}
    for node in trace.program.graph.nodes:
        if node.name in network.nodes:
            shapes[node.name] = network.nodes[node.name].outputs
        elif specs.get(node.name) in network.tensors:
            shapes[node.name] = (network.tensors[str(specs[node.name])],)
        elif node.op == "placeholder":
            shapes[node.name] = (_input_shape(node),)
        elif node.target is operator.getitem:
            source, position = node.args[0], node.args[1]
            assert isinstance(source, Node) and isinstance(position, int)
            shapes[node.name] = shapes.get(source.name, ())[position : position + 1]
    return shapes


def _input_shape(node: Node) -> Shape:
    return tuple(Axis(size_of(size)) for size in getattr(node.meta.get("val"), "shape", ()))
