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
from functools import partial
from typing import Any

import torch
from torch import Tensor

from compressor.calls import Call
from compressor.double_precision import ENTRIES
from compressor.graph.network import Network
from compressor.least_squares.at_once import LEAST as LEAST_AT_ONCE
from compressor.least_squares.at_once import samples_with_gradients
from compressor.least_squares.consumers import Contraction
from compressor.least_squares.consumers import consumers as consumers_of
from compressor.least_squares.gradients import gradients_at
from compressor.least_squares.layouts import row_count, row_grid
from compressor.least_squares.memory import Memory, Workspace
from compressor.least_squares.walk import Script
from compressor.padding import counted_of, counted_rows
from compressor.processes import all_summed
from compressor.records import Group, Trace

SAMPLES, LEAST, SHARE = 128, 16, 0.25
"""The number of samples, each with a random direction of its own; more change the choice little. Of
few samples it is a share, since a pass with gradients takes as long as three without."""

FEWEST = 8
"""The least number of them where gradients are taken in stretches: such networks return so much for
each sample, every entry with a direction of its own, that few samples are enough."""

_SEEN = ""

AT_ONCE = 8
"""The most samples whose activations are kept for one backward pass."""


def salience(
    script: Script,
    consumers: Sequence[Contraction],
    batches: Iterable[Any],
    *,
    at_once: int | None,
    memory: int | None = None,
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
        memory: Bytes for the values that are held together; None: for those of all operators.
        seed: Seed of the random directions.
        most: The samples that are run, about.
        progress: Is told of how many samples are done, one part after the other.

    Returns:
        Name of the consumer's node -> [outputs], a mean over samples and positions. Contractions
        that no gradient reaches are left out.
    """
    direction = partial(_direction, generator=torch.Generator().manual_seed(seed))
    sums = {_SEEN: torch.zeros((), dtype=torch.float64)}
    for part in _some(batches, at_once, most):
        for consumer, gradient, _ in gradients_at(script, consumers, part, direction, memory):
            squares = _mean([gradient], consumer, counted_of(part), torch.square)
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
    direction = partial(_direction, generator=torch.Generator().manual_seed(workspace.seed))
    at_once, memory = gradients_at_once(trace, workspace.memory)
    consumers = [c for c in consumers_of(trace.program, network.aliases) if not c.recurs]
    sums = {consumer.node: torch.zeros((), dtype=torch.float64) for consumer in consumers}
    for part in _some(batches, at_once):
        counted = counted_of(part)
        for consumer, slope, value in gradients_at(script, consumers, part, direction, memory):
            mean = _mean([value], consumer, counted)

            def moved(outputs: Tensor, slopes: Tensor, mean: Tensor = mean) -> Tensor:
                return (slopes * (outputs - mean)).square()

            rows = sum(len(some) for some in _rows_of(value, consumer, counted))
            sums[consumer.node] += rows * _mean([value, slope], consumer, counted, moved).sum()
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


def gradients_at_once(trace: Trace, memory: Memory) -> tuple[int | None, int | None]:
    """Return how gradients of samples are taken within a memory.

    Returns:
        How many samples are run together, None where batches are not parted; and of how many bytes
        the values are that are held together, None where it holds those of all operators.
    """
    if trace.batch_symbol is None:
        return None, None
    fit = samples_with_gradients(trace.program, memory.moments)
    return min(AT_ONCE, max(LEAST_AT_ONCE, fit)), memory.moments if fit < LEAST_AT_ONCE else None


def samples_of(there: int, *, in_stretches: bool = False) -> int:
    """Return how many samples are run of those that there are."""
    least, share = (FEWEST, SHARE / 2) if in_stretches else (LEAST, SHARE)
    return min(SAMPLES, max(least, math.ceil(share * there)))


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


def _rows_of(values: Tensor, consumer: Contraction, counted: Tensor | None) -> Iterator[Tensor]:
    """Yield the rows of a consumer's outputs, without padding, some at a time."""
    rows = counted_rows(row_grid(values, consumer.layout), counted)
    if rows is None:
        rows = torch.arange(row_count(values, consumer.layout))
    at_once = max(1, ENTRIES * len(rows) // max(1, values.numel()))
    for start in range(0, len(rows), at_once):
        yield rows[start : start + at_once].to(values.device)


def _mean(
    values: Sequence[Tensor],
    consumer: Contraction,
    counted: Tensor | None,
    of: Callable[..., Tensor] = lambda columns: columns,
) -> Tensor:
    """Return the mean over rows of a function of the columns [rows, outputs] of some values.

    They are taken in double precision, some rows at a time.
    """
    total, count = torch.zeros((), dtype=torch.float64), 0
    for rows in _rows_of(values[0], consumer, counted):
        columns = (consumer.layout.outputs(each, rows).double().cpu() for each in values)
        total, count = total + of(*columns).sum(0), count + len(rows)
    return total / max(count, 1)


def _direction(output: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a random direction of an output's shape, in units of the output's own spread."""
    drawn = torch.randn(output.shape, generator=generator).to(output)
    return drawn.div_(output.detach().std(correction=0).clamp(min=1e-12))
