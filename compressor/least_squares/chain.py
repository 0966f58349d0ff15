"""What a consumer's output becomes until it meets others: moved and scaled, and nothing more."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from compressor.least_squares.consumers import Contraction
from compressor.least_squares.walk import Script, Walk


class Chain:
    """The chain from a consumer's output y to its target: t = P(s·y) + c.

    P only moves values. 1 / s² per value of y depends on weights alone, so it is computed once, and
    kept with one value where it is the same along a dimension (samples, positions).
    """

    def __init__(self, script: Script, consumer: Contraction) -> None:
        self.first = script.named[consumer.node]
        self.links = [script.named[name] for name in consumer.chain]
        self.inverse: Tensor | None = None

    def pull(self, ahead: Walk, change: Tensor) -> Tensor:
        """Return the change of y that brings about a change of the target (0 where s is zero).

        Args:
            ahead: A walk that has run through the chain.
            change: The target's change, of the target's shape.
        """
        if not self.links:
            return change
        start = torch.zeros_like(ahead.values[self.first], requires_grad=True)
        with torch.enable_grad():
            end = self._through(ahead, start)
        if self.inverse is None or not _fits(self.inverse, start):
            self.inverse = _squeeze(self._invert(ahead, start, end))
        (pulled,) = torch.autograd.grad(end, start, change)
        return pulled.mul_(self.inverse)

    def _invert(self, ahead: Walk, start: Tensor, end: Tensor) -> Tensor:
        slope = self._through(ahead, torch.ones_like(start)) - end
        (gain,) = torch.autograd.grad(end, start, slope.detach(), retain_graph=True)
        return torch.where(gain > 1e-12 * gain.max(), 1 / gain, 0.0)

    def _through(self, ahead: Walk, value: Tensor) -> Tensor:
        inner: dict[Node, Tensor] = {self.first: value}
        for node in self.links:
            known = ahead.values | inner
            args, kwargs = map_arg((node.args, node.kwargs), known.__getitem__)
            inner[node] = _functional(node)(*args, **kwargs)
        return inner[self.links[-1]]


def _fits(values: Tensor, other: Tensor) -> bool:
    pairs = zip(values.shape, other.shape, strict=True)
    return all(size in (1, whole) for size, whole in pairs)


def _squeeze(values: Tensor) -> Tensor:
    """Return values with size 1 along each dimension along which they are all the same."""
    for dim in range(values.dim()):
        first = values.narrow(dim, 0, 1)
        values = first.clone() if bool((values == first).all()) else values
    return values


def _functional(node: Node) -> Any:
    """Return a node's operator in the form that does not write to its argument."""
    name = str(node.target)
    if not name.endswith(("_.Tensor", "_.default")) or "_unsafe" in name:
        return node.target
    packet = getattr(torch.ops.aten, name.split(".")[1].rstrip("_"))
    return getattr(packet, name.split(".")[2])
