"""Measure what an error of a consumer's output does to the network's: its gradient's mean square.

An error e of the output column c moves the network's outputs, in a random direction v, by
(∂(v·out)/∂y_c)·e; its square, averaged over directions, is ‖∂out/∂y_c‖²·e² (Hutchinson's
estimator, cf. Dong et al. 2020, HAWQ-V2, section 3). No labels and no loss are needed.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from compressor.calls import Call
from compressor.graph.network import Network
from compressor.least_squares.consumers import Contraction
from compressor.least_squares.consumers import consumers as consumers_of
from compressor.least_squares.layouts import row_count
from compressor.least_squares.walk import Script, Walk
from compressor.padding import blank_padding
from compressor.processes import all_summed
from compressor.records import Group, Trace

SAMPLES = 128
"""The number of samples, each with a random direction of its own; more change the choice little."""

_SEEN = ""

AT_ONCE = 8
"""The number of samples whose activations are kept for one backward pass."""


def salience(
    script: Script,
    consumers: Sequence[Contraction],
    batches: Iterable[Any],
    *,
    is_divisible: bool,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Compute the mean squared gradient of the network's outputs at each consumer's output columns.

    Args:
        script: The program to run.
        consumers: The consumers.
        batches: Calibration batches, each a call of the network.
        is_divisible: Whether batches may be run in parts.
        seed: Seed of the random directions.

    Returns:
        Name of the consumer's node -> [outputs], a mean over samples and positions. Contractions
        that no gradient reaches are left out.
    """
    generator = torch.Generator().manual_seed(seed)
    sums = {_SEEN: torch.zeros((), dtype=torch.float64)}
    for part in _some(batches, is_divisible):
        for consumer, gradient, _ in _gradients(script, consumers, part, generator):
            squares = _columns(gradient, consumer).square().mean(0)
            sums[consumer.node] = sums.get(consumer.node, 0.0) + part.samples * squares
        sums[_SEEN] = sums[_SEEN] + part.samples
    sums = all_summed(sums)
    seen = sums.pop(_SEEN)
    return {name: total / seen for name, total in sums.items() if total.any()}


def stakes(
    trace: Trace, network: Network, batches: Iterable[Any], *, device: str = "cpu", seed: int = 0
) -> dict[str, float]:
    """Estimate per group what the outputs lose where its consumers give their mean alone.

    A consumer whose output y becomes its mean moves the outputs, in a random direction v, by the
    sum of (∂(v·out)/∂y)·(y - mean) over columns and positions, of which squares are summed, as if
    positions were independent. Of a group's consumers the mean is taken.

    Returns:
        Group name -> a factor for relative errors, of geometric mean 1. Groups of which no consumer
        is known, or that the outputs do not depend on, are left out.
    """
    script, generator = Script(trace.program, device), torch.Generator().manual_seed(seed)
    found = [c for c in consumers_of(trace.program, network.aliases) if not c.recurs]
    sums = {consumer.node: torch.zeros((), dtype=torch.float64) for consumer in found}
    for part in _some(batches, trace.batch_symbol is not None):
        for consumer, gradient, value in _gradients(script, found, part, generator):
            outputs = _columns(value, consumer)
            moved = _columns(gradient, consumer) * (outputs - outputs.mean(0))
            sums[consumer.node] += moved.square().sum()
    by_tensor: dict[str, list[float]] = {}
    whole = all_summed(sums)
    for consumer in found:
        by_tensor.setdefault(consumer.tensor, []).append(float(whole[consumer.node]))
    means = {group.name: _mean_of(group, by_tensor) for group in network.groups}
    known = {name: stake for name, stake in means.items() if stake > 0}
    usual = math.exp(sum(map(math.log, known.values())) / max(len(known), 1))
    return {name: stake / usual for name, stake in known.items()}


def _mean_of(group: Group, by_tensor: Mapping[str, Sequence[float]]) -> float:
    tensors = dict.fromkeys(member.tensor for member in group.members if member.contracted)
    each = [stake for tensor in tensors for stake in by_tensor.get(tensor, ())]
    return sum(each) / len(each) if each else 0.0


def _some(batches: Iterable[Any], is_divisible: bool) -> Iterator[Call]:
    """Yield parts of batches until there are `SAMPLES` samples."""
    seen = 0
    parts = (_parts(Call.of(given), is_divisible) for given in batches)
    for part in itertools.chain.from_iterable(parts):
        yield part
        seen += part.samples
        if seen >= SAMPLES:
            return


def _parts(given: Call, is_divisible: bool) -> Iterable[Call]:
    if not is_divisible:
        yield given
        return
    for start in range(0, given.samples, AT_ONCE):
        yield given.map(operator.itemgetter(slice(start, start + AT_ONCE)))


def _gradients(
    script: Script,
    consumers: Sequence[Contraction],
    given: Call,
    generator: torch.Generator,
) -> list[tuple[Contraction, Tensor, Tensor]]:
    """Return consumers with the gradient of a random direction of the outputs, and their values."""
    with torch.enable_grad():
        walk = _Probing(script, script.start(given), {c.node for c in consumers})
        moved = sum(
            (blank_padding(_direction(output, generator), walk.counted) * output).sum()
            for output in walk.outputs()
            if isinstance(output, Tensor) and output.requires_grad
        )
    if not isinstance(moved, Tensor):
        return []
    probes = [walk.probes[c.node] for c in consumers]
    found = torch.autograd.grad(moved, probes, allow_unused=True, materialize_grads=True)
    values = [walk.watched_values[c.node] for c in consumers]
    return list(zip(consumers, found, values, strict=True))


def _columns(values: Tensor, consumer: Contraction) -> Tensor:
    """Return a consumer's outputs, or their gradient, as [rows, outputs] in double precision."""
    rows = torch.arange(row_count(values, consumer.layout), device=values.device)
    return consumer.layout.outputs(values.double(), rows).cpu()


def _direction(output: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a random direction of an output's shape, in units of the output's own spread."""
    drawn = torch.randn(output.shape, generator=generator).to(output)
    return drawn / output.detach().std(correction=0).clamp(min=1e-12)


class _Probing(Walk):
    """A walk that adds zeros to some values, to take gradients with respect to them."""

    def __init__(self, script: Script, start: Walk, watched: set[str]) -> None:
        super().__init__(script, start.values, start.position, start.counted)
        self.watched = watched
        self.probes: dict[str, Tensor] = {}
        self.watched_values: dict[str, Tensor] = {}

    def compute(self, node: Node) -> Any:
        value = super().compute(node)
        if node.name in self.watched:
            self.watched_values[node.name] = value.detach()
            self.probes[node.name] = torch.zeros_like(value, requires_grad=True)
            value = value + self.probes[node.name]
        return value
