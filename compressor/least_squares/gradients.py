"""Take the gradients of a program's outputs at some of its values, stretch by stretch.

A gradient needs the values that it passes. Where the memory does not hold those of all operators,
the program runs once without keeping any, up to the end; what is needed at the borders of its
stretches is remembered. From the last stretch to the first, each is then run again with its values,
and handed the gradient of what the next one needs of it (Chen et al. 2016, Training Deep Nets with
Sublinear Memory Cost).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from compressor.calls import Call
from compressor.least_squares.at_once import IN_A_GRADIENT
from compressor.least_squares.consumers import Contraction
from compressor.least_squares.walk import Script, Walk
from compressor.padding import blank_padding

Directions = Callable[[Tensor], Tensor]
"""Returns, of an output, the direction in which its gradient is taken, of the same shape."""

AtConsumer = tuple[Contraction, Tensor, Tensor]
"""A consumer, the gradient at its output, and that output."""


def gradients_at(
    script: Script,
    consumers: Sequence[Contraction],
    given: Call,
    directions: Directions,
    memory: int | None = None,
) -> Iterator[AtConsumer]:
    """Yield the gradient of the outputs, each in a direction, at each consumer's output.

    Args:
        script: The program.
        consumers: Those whose outputs are looked at; where no gradient gets, it is zero.
        given: The samples.
        directions: Of the outputs.
        memory: Bytes for the values of one stretch; None: the program is run in one. So is one
            that writes to its own values.
    """
    watched = {consumer.node: consumer for consumer in consumers}
    moved = _moved_by(script, watched.keys())
    borders, end = _borders(script, given, memory), len(script.nodes) - 1
    following: _Gradients | None = None
    while borders:
        border = borders.pop()
        walk, leaves = _begin(script, border, watched.keys(), moved if borders else frozenset())
        with torch.enable_grad():
            walk.run_until(end)
            ways = _at_the_end(walk, directions) if following is None else _on(walk, following)
        found = _differentiate(ways, [*leaves.values(), *walk.probes.values()])
        following = dict(zip(leaves, found, strict=False))
        at_probes = dict(zip(walk.probes, found[len(leaves) :], strict=True))
        values, end = walk.seen, border.position
        del walk, leaves, ways, found  # the next stretch needs their memory
        for name in list(values):
            value, gradient = values.pop(name), at_probes.pop(name)
            yield watched[name], torch.zeros_like(value) if gradient is None else gradient, value


_Place = tuple[Node, int]
"""A tensor among the values of a node: the first, the second, ..."""

_Gradients = dict[_Place, Tensor | None]

_Ways = list[tuple[Tensor, Tensor]]
"""Tensors that a stretch comes to, and the direction, or the gradient, of each."""


def _moved_by(script: Script, watched: Collection[str]) -> frozenset[Node]:
    """Return the nodes whose values change where one of the watched nodes' does."""
    moved: set[Node] = set()
    for node in script.nodes:
        if node.name in watched or not moved.isdisjoint(node.all_input_nodes):
            moved.add(node)
    return frozenset(moved)


def _borders(script: Script, given: Call, memory: int | None) -> list[Walk]:
    """Return walks that stand where stretches begin.

    A stretch has values of so many bytes, or a single operator.
    """
    walk = script.start(given)
    borders = [_copy(walk)]
    if memory is None or script.is_written_to:
        return borders
    held, last = 0, len(script.nodes) - 1
    with torch.no_grad():
        while walk.position < last:
            node = script.nodes[walk.position]
            walk.run_until(walk.position + 1)
            held += IN_A_GRADIENT * _bytes_of(walk.values.get(node))
            if held > memory and walk.position < last:
                borders.append(_copy(walk))
                held = 0
    return borders


def _copy(walk: Walk) -> Walk:
    """Return a walk of its own that stands where another one does."""
    return Walk(walk.script, dict(walk.values), walk.position, walk.counted)


def _bytes_of(value: Any) -> int:
    tensors = (leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor))
    return sum(tensor.nbytes for tensor in tensors)


def _begin(
    script: Script, border: Walk, watched: Collection[str], moved: Collection[Node]
) -> tuple[_Probing, dict[_Place, Tensor]]:
    """Return a walk from a border, and those of its values there that gradients are taken of."""
    leaves: dict[_Place, Tensor] = {}
    values = dict(border.values)
    for node in values.keys() & set(moved):
        flat, spec = pytree.tree_flatten(values[node])
        for number, leaf in enumerate(flat):
            if isinstance(leaf, Tensor) and leaf.is_floating_point():
                flat[number] = leaves[node, number] = leaf.detach().requires_grad_()
        values[node] = pytree.tree_unflatten(flat, spec)
    return _Probing(script, values, border.position, border.counted, watched), leaves


def _at_the_end(walk: Walk, directions: Directions) -> _Ways:
    outputs = (output for output in walk.outputs() if isinstance(output, Tensor))
    return [(y, blank_padding(directions(y), walk.counted)) for y in outputs if y.requires_grad]


def _on(walk: Walk, following: _Gradients) -> _Ways:
    """Return what the next stretch begins with, and its gradients, where there are any."""
    ways = []
    for (node, number), gradient in following.items():
        value = pytree.tree_leaves(walk.values[node])[number]
        if gradient is not None and value.requires_grad:
            ways.append((value, gradient))
    return ways


def _differentiate(ways: _Ways, inputs: Sequence[Tensor]) -> Sequence[Tensor | None]:
    if not ways or not inputs:
        return [None] * len(inputs)
    values, directions = zip(*ways, strict=True)
    return torch.autograd.grad(values, inputs, directions, allow_unused=True)


class _Probing(Walk):
    """A walk that adds zeros to some values, to take gradients with respect to them."""

    def __init__(
        self,
        script: Script,
        values: dict[Node, Any],
        position: int,
        counted: Tensor | None,
        watched: Collection[str],
    ) -> None:
        super().__init__(script, values, position, counted)
        self.watched = watched
        self.probes: dict[str, Tensor] = {}
        self.seen: dict[str, Tensor] = {}

    def compute(self, node: Node) -> Any:
        value = super().compute(node)
        if node.name in self.watched:
            self.seen[node.name] = value.detach()
            # one zero that stands in all places takes no memory
            zeros = value.new_zeros(()).expand(value.shape).detach()
            self.probes[node.name] = zeros.requires_grad_()
            value = value + self.probes[node.name]
        return value
