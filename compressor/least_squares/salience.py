"""Measure what an error of a consumer's output does to the network's: its gradient's mean square.

An error e of the output column c moves the network's outputs, in a random direction v, by
(∂(v·out)/∂y_c)·e; its square, averaged over directions, is ‖∂out/∂y_c‖²·e² (Hutchinson's
estimator, cf. Dong et al. 2020, HAWQ-V2, section 3). No labels and no loss are needed.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from compressor.calls import Call
from compressor.graph.network import Network
from compressor.least_squares.at_once import samples_with_gradients
from compressor.least_squares.consumers import Contraction
from compressor.least_squares.consumers import consumers as consumers_of
from compressor.least_squares.layouts import row_count, row_grid
from compressor.least_squares.memory import Memory, Workspace
from compressor.least_squares.walk import Script, Walk
from compressor.padding import blank_padding, counted_of, counted_rows
from compressor.processes import all_summed
from compressor.records import Group, Trace

SAMPLES, LEAST, SHARE = 128, 16, 0.25
"""The number of samples, each with a random direction of its own; more change the choice little. Of
few samples it is a share, since a pass with gradients takes as long as three without."""

_SEEN = ""

AT_ONCE = 8
"""The most samples whose activations are kept for one backward pass."""


def salience(
    script: Script,
    consumers: Sequence[Contraction],
    batches: Iterable[Any],
    *,
    at_once: int | None,
    seed: int = 0,
    most: int = SAMPLES,
    progress: Callable[[int], None] = lambda samples: None,
) -> dict[str, Tensor]:
    """Compute the mean squared gradient of the network's outputs at each consumer's output columns.

    Args:
        script: The program to run.
        consumers: The consumers.
        batches: Calibration batches, each a call of the network.
        at_once: The samples that are run together; None: batches as they are.
        seed: Seed of the random directions.
        most: The samples that are run, about.
        progress: Is told of how many samples are done, one part after the other.

    Returns:
        Name of the consumer's node -> [outputs], a mean over samples and positions. Contractions
        that no gradient reaches are left out.
    """
    generator = torch.Generator().manual_seed(seed)
    sums = {_SEEN: torch.zeros((), dtype=torch.float64)}
    for part in _some(batches, at_once, most):
        for consumer, gradient, _ in _gradients(script, consumers, part, generator):
            squares = _columns(gradient, consumer, counted_of(part)).square().mean(0)
            sums[consumer.node] = sums.get(consumer.node, 0.0) + part.samples * squares
        sums[_SEEN] = sums[_SEEN] + part.samples
        progress(part.samples)
    sums = all_summed(sums)
    seen = sums.pop(_SEEN)
    return {name: total / seen for name, total in sums.items() if total.any()}


def stakes(
    trace: Trace, network: Network, batches: Iterable[Any], workspace: Workspace | None = None
) -> dict[str, float]:
    """Estimate per group what the outputs lose where its consumers give their mean alone.

    A consumer whose output y becomes its mean moves the outputs, in a random direction v, by the
    sum of (∂(v·out)/∂y)·(y - mean) over columns and positions, of which squares are summed, as if
    positions were independent. Of a group's consumers the mean is taken.

    Returns:
        Group name -> a factor for relative errors, of geometric mean 1. Groups of which no consumer
        is known, or that the outputs do not depend on, are left out.
    """
    workspace = workspace or Workspace()
    script = Script(trace.program, workspace.device)
    generator = torch.Generator().manual_seed(workspace.seed)
    at_once = gradients_at_once(trace, workspace.memory)
    consumers = [c for c in consumers_of(trace.program, network.aliases) if not c.recurs]
    sums = {consumer.node: torch.zeros((), dtype=torch.float64) for consumer in consumers}
    for part in _some(batches, at_once):
        for consumer, gradient, value in _gradients(script, consumers, part, generator):
            outputs, slopes = (_columns(x, consumer, counted_of(part)) for x in (value, gradient))
            moved = slopes * (outputs - outputs.mean(0))
            sums[consumer.node] += moved.square().sum()
    by_tensor: dict[str, list[float]] = {}
    whole = all_summed(sums)
    for consumer in consumers:
        by_tensor.setdefault(consumer.tensor, []).append(float(whole[consumer.node]))
    means = {group.name: _mean_of(group, by_tensor) for group in network.groups}
    known = {name: stake for name, stake in means.items() if stake > 0}
    usual = math.exp(sum(map(math.log, known.values())) / max(len(known), 1))
    return {name: stake / usual for name, stake in known.items()}


def _mean_of(group: Group, by_tensor: Mapping[str, Sequence[float]]) -> float:
    tensors = dict.fromkeys(member.tensor for member in group.members if member.contracted)
    each = [stake for tensor in tensors for stake in by_tensor.get(tensor, ())]
    return sum(each) / len(each) if each else 0.0


def gradients_at_once(trace: Trace, memory: Memory) -> int | None:
    """Return how many samples a memory holds with gradients; None where batches are not parted."""
    if trace.batch_symbol is None:
        return None
    return min(AT_ONCE, samples_with_gradients(trace.program, memory.moments))


def samples_of(there: int) -> int:
    """Return how many samples are run of those that there are."""
    return min(SAMPLES, max(LEAST, math.ceil(SHARE * there)))


def _some(batches: Iterable[Any], at_once: int | None, most: int = SAMPLES) -> Iterator[Call]:
    """Yield parts of batches until there are `most` samples."""
    seen = 0
    parts = (_parts(Call.of(given), at_once) for given in batches)
    for part in itertools.chain.from_iterable(parts):
        yield part
        seen += part.samples
        if seen >= most:
            return


def _parts(given: Call, at_once: int | None) -> Iterable[Call]:
    if at_once is None:
        yield given
        return
    for start in range(0, given.samples, at_once):
        yield given.map(operator.itemgetter(slice(start, start + at_once)))


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
    gradients = torch.autograd.grad(moved, probes, allow_unused=True, materialize_grads=True)
    values = [walk.watched_values[c.node] for c in consumers]
    return list(zip(consumers, gradients, values, strict=True))


def _columns(values: Tensor, consumer: Contraction, counted: Tensor | None) -> Tensor:
    """Return a consumer's outputs, or their gradient, as [rows, outputs] in double precision.

    Rows that are padding are left out.
    """
    rows = counted_rows(row_grid(values, consumer.layout), counted)
    if rows is None:
        rows = torch.arange(row_count(values, consumer.layout))
    rows = rows.to(values.device)
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
            # one zero that stands in all places takes no memory
            zeros = value.new_zeros(()).expand(value.shape).detach()
            self.probes[node.name] = zeros.requires_grad_()
            value = value + self.probes[node.name]
        return value
