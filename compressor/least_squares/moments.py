"""Gather the second moments of a consumer's features and outputs, batch by batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from compressor.graph.programs.nodes import argument, schema_names
from compressor.least_squares.consumers import Contraction
from compressor.least_squares.layouts import blocks_of, row_count, row_grid
from compressor.least_squares.memory import Memory
from compressor.least_squares.walk import Script, Walk
from compressor.padding import counted_rows
from compressor.processes import all_summed

Inputs = Callable[[], Iterable[Any]]
"""A function that gives the calibration batches anew, the same each time: calls, or positional
inputs alone."""


ROWS_PER_FEATURE = 32
"""How many output positions a regression takes for each of its features, drawn at random; at least
`Memory.least_rows`."""

MOST_SHRUNK = 0.9
"""The largest share of shrinkage, for features that the samples say nothing of."""


def arguments_at(walk: Walk, node: Node) -> dict[str, Any]:
    """Return the values of the arguments that a node is about to be called with, by name."""
    given = {name: argument(node, name) for name in schema_names(node)}
    values: dict[str, Any] = map_arg(given, walk.values.__getitem__)
    return values


def draw_rows(
    total: int, width: int, blocks: int, batches: int, generator: torch.Generator, memory: Memory
) -> Tensor:
    """Draw which of a batch's output positions take part, in ascending order.

    Args:
        total: How many there are.
        width: Number of features of each block of the regression.
        blocks: Number of its blocks.
        batches: How many batches share the wanted number of positions.
        generator: Draws them.
        memory: Says how many are taken at least over all batches, and at most of one.
    """
    wanted = max(memory.least_rows, ROWS_PER_FEATURE * width)
    wanted = min(math.ceil(wanted / max(1, batches)), memory.most_rows(width * blocks))
    if wanted >= total:
        return torch.arange(total)
    return torch.randint(total, (wanted,), generator=generator).sort().values


@dataclass
class Moments:
    """Sums over the rows of a regression's features u and targets t, in float64.

    Attributes:
        crosses: Whether `cross` is gathered.
        count: Number of rows.
        parts: The sums by name. `outer` is Σ uuᵀ, [blocks, features, features]; `cross` Σ utᵀ,
            [blocks, features, outputs]; `features` Σ u; `targets` Σ t; `squares` Σ t². Half
            batches are looked at apart: `halves` is their number, `norms` the sum of the squared
            norms of their mean squares uuᵀ, [blocks].
    """

    crosses: bool = True
    count: int = 0
    parts: dict[str, Tensor] = field(default_factory=dict)

    def add(self, features: Tensor, targets: Tensor) -> None:
        """Add features [blocks, rows, features] and targets [blocks, rows, outputs] to the sums."""
        rows = features.shape[1]
        self.count += rows
        for some in halves_of(rows):
            self._add(features[:, some], targets[:, some])

    def _add(self, features: Tensor, targets: Tensor) -> None:
        turned = features.transpose(1, 2)
        outer = turned @ features
        self._take("outer", outer)
        self._take("norms", square_norm(outer) / features.shape[1] ** 2)
        del outer
        if self.crosses:
            self._take("cross", turned @ targets)
        self._take("features", features.sum(1))
        self._take("targets", targets.sum(1))
        self._take("squares", targets.square().sum(1))
        self._take("halves", torch.ones(()))

    def _take(self, name: str, value: Tensor) -> None:
        """Add a value to a sum in place, without a second tensor of its size."""
        if name in self.parts:
            self.parts[name] += value.cpu()
        else:
            self.parts[name] = value.cpu().double()

    def over_processes(self) -> Moments:
        """Return the moments of the rows of all processes together."""
        count = torch.tensor([self.count], dtype=torch.float64)
        parts = all_summed({"count": count, **self.parts})
        return Moments(self.crosses, int(parts.pop("count")), parts)

    def settle(self, *, centred: bool) -> tuple[Tensor, Tensor]:
        """Return the covariance of the features and its shrinkage; `outer` is used up for it.

        The covariance is the mean of uuᵀ, less the product of the means if a constant takes care of
        those: [blocks, features, features]. The shrinkage is how much of the mean square is added
        to the diagonal, so that the covariance errs least where samples are few: [blocks].
        """
        covariance, halves = self.parts.pop("outer").div_(self.count), self.parts["halves"]
        square = square_norm(covariance)
        if centred:
            u = self.parts["features"] / self.count
            covariance.baddbmm_(u.unsqueeze(2), u.unsqueeze(1), alpha=-1)
        mean = covariance.diagonal(dim1=1, dim2=2).sum(1) / max(1, covariance.shape[1])
        spread = square_norm(covariance) - covariance.shape[1] * mean.square()
        return covariance, shrinkage_of(self.parts["norms"] / halves, halves, square, spread)

    def cross(self, *, centred: bool) -> Tensor:
        mean = self.parts["cross"] / self.count
        if centred:
            u, t = (self.parts[name] / self.count for name in ("features", "targets"))
            mean = mean - u.unsqueeze(2) * t.unsqueeze(1)
        return mean

    def variance(self) -> Tensor:
        """Return the variance of the targets, [blocks, outputs]."""
        mean = self.parts["targets"] / self.count
        return (self.parts["squares"] / self.count - mean.square()).clamp(min=0)

    def means(self) -> tuple[Tensor, Tensor]:
        return self.parts["features"] / self.count, self.parts["targets"] / self.count


def halves_of(rows: int) -> list[slice]:
    """Return a batch's rows as two halves; a single row is one by itself."""
    found = (slice(0, rows // 2), slice(rows // 2, rows))
    return [half for half in found if half.stop > half.start]


def shrinkage_of(norms: Tensor, halves: Tensor | int, square: Tensor, spread: Tensor) -> Tensor:
    """Compute how much of the mean square is added to a covariance's diagonal, [blocks].

    The weights are those of Ledoit and Wolf 2004 (A well-conditioned estimator for
    large-dimensional covariance matrices, section 3), with half batches for samples, since the
    positions of one image are not independent.

    Args:
        norms: Mean of the squared norms of the half batches' mean squares.
        halves: How many half batches there are.
        square: Squared norm of the mean square of all.
        spread: Squared norm of the covariance, less a multiple of the identity of the same trace.
    """
    count = torch.as_tensor(halves, dtype=torch.float64)
    noise = (norms - square).clamp(min=0) / (count - 1).clamp(min=1)
    share = (noise / spread.clamp(min=1e-30)).clamp(max=MOST_SHRUNK)
    return share / (1 - share)


def square_norm(matrices: Tensor) -> Tensor:
    """Return the squared norm of each block, [blocks], summed in double precision."""
    norms: Tensor = torch.linalg.vector_norm(matrices, dim=(1, 2), dtype=torch.float64)
    return norms.square()


# -- what a consumer's output becomes ------------------------------------------------------------


class Chain:
    """The chain from a consumer's output y to its target: t = P(s·y) + c.

    P only moves values. 1 / s² per value of y depends on weights alone, so it is computed once.
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
        if self.inverse is None or self.inverse.shape != start.shape:
            self.inverse = self._invert(ahead, start, end)
        (pulled,) = torch.autograd.grad(end, start, change)
        return pulled * self.inverse

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


def _functional(node: Node) -> Any:
    """Return a node's operator in the form that does not write to its argument."""
    name = str(node.target)
    if not name.endswith(("_.Tensor", "_.default")) or "_unsafe" in name:
        return node.target
    packet = getattr(torch.ops.aten, name.split(".")[1].rstrip("_"))
    return getattr(packet, name.split(".")[2])


def features_of(
    walk: Walk,
    node: Node,
    consumer: Contraction,
    batches: int,
    generator: torch.Generator,
    out: Tensor,
    memory: Memory,
) -> tuple[Tensor, Tensor]:
    """Return the features of some rows, [blocks, rows, features], and the rows' positions."""
    rows = rows_at(walk, node, consumer, batches, generator, out, memory)
    return consumer.layout.features(arguments_at(walk, node), rows), rows


def rows_at(
    walk: Walk,
    node: Node,
    consumer: Contraction,
    batches: int,
    generator: torch.Generator,
    out: Tensor,
    memory: Memory,
) -> Tensor:
    """Draw which rows of a batch take part in a consumer's regression; padded ones never do.

    Args:
        walk: A walk just before the consumer.
        node, consumer: The consumer.
        batches: How many batches share the wanted number of rows.
        generator: Draws the rows.
        out: The consumer's output; the rows are returned on its device.
        memory: Bounds the number of rows.
    """
    arguments = arguments_at(walk, node)
    weights = [walk.script.tensors[name] for name in consumer.tensors]
    width = sum(weight.numel() // weight.shape[0] for weight in weights)
    blocks = blocks_of(arguments)
    counted = counted_rows(row_grid(out, consumer.layout), walk.counted)
    count = row_count(out, consumer.layout) if counted is None else len(counted)
    rows = draw_rows(count, width, blocks, batches, generator, memory).to(out.device)
    return rows if counted is None else counted.to(out.device)[rows]


def in_blocks(values: Tensor, blocks: int) -> Tensor:
    """Reshape values [rows, all outputs] to [blocks, rows, outputs]."""
    return values.reshape(len(values), blocks, -1).transpose(0, 1)
