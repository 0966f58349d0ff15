"""Score by the activations that consumers are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from compressor.calls import Call
from compressor.graph.network import Consumer
from compressor.padding import counted_of, counted_rows
from compressor.score.averages import Average
from compressor.score.criterion import Floats, Material, Rows
from compressor.score.places import Place, places
from compressor.score.traced_program import Look, Program, told_apart

Moments = dict[tuple[str, int], Floats]
"""(parameter, dimension) -> the mean of a statistic, per position of what the dimension is summed
with, [positions]."""

Statistic = Callable[[torch.Tensor], torch.Tensor]
"""A function from rows of activations, [rows, columns], to the mean of something of each column."""

Measure = Callable[..., Floats]
"""A function from a consumer and its inputs' moments, one [positions] for each statistic, to one
number per channel."""


def mean_squares(rows: torch.Tensor) -> torch.Tensor:
    """Compute the mean square of each column, in single precision at least."""
    return _precise(rows).square().mean(0)


def means(rows: torch.Tensor) -> torch.Tensor:
    """Compute the mean of each column, in single precision at least."""
    return _precise(rows).mean(0)


def _precise(rows: torch.Tensor) -> torch.Tensor:
    return rows.to(torch.promote_types(rows.dtype, torch.float32))


def of_activations(
    measure: Measure, statistics: Sequence[Statistic] = (mean_squares,)
) -> Callable[[Material], Rows]:
    """Build a criterion from a measure: a row for each consumer whose activations can be seen.

    Args:
        measure: Is given the consumer and the moments.
        statistics: What moments it takes, in their order.
    """

    def rows(material: Material) -> Rows:
        moments = moments_of(material, statistics)
        return {
            name: [
                measure(place, *(each[place.member.tensor, place.member.dim] for each in moments))
                for place in there
                if (place.member.tensor, place.member.dim) in moments[0]
            ]
            for name, there in places(material.network, material.tensors).items()
        }

    return rows


def moments_of(material: Material, statistics: Sequence[Statistic]) -> Sequence[Moments]:
    """Compute statistics of what every consumer is given, in one pass over the data.

    The means are over samples and positions that are no padding, and over the groups of a grouped
    convolution. Memory grows with the widest layer, not with the data.

    Raises:
        CompressorError: The network fails on a batch, or the inputs are not the traced call's.
    """
    data, network = material.data, material.network
    program = Program(data.trace, network.consumers, data.device)
    sizes = {(c.tensor, c.dim): network.tensors[c.tensor][c.dim].size for c in program.consumers}
    averages = [(statistic, Average(sizes)) for statistic in statistics]

    def look_at(counted: torch.Tensor | None) -> Look:
        def look(consumer: Consumer, activation: torch.Tensor) -> torch.Tensor:
            key = consumer.tensor, consumer.dim
            rows = rows_that_count(activation, consumer.at, counted)
            if len(rows):
                for statistic, average in averages:
                    mean = statistic(rows).reshape(-1, sizes[key]).mean(0)
                    average.add(key, mean.cpu().double().numpy(), rows.numel() / sizes[key])
            return activation

        return look

    with torch.no_grad():
        for inputs, _ in data.batches:
            with told_apart(inputs):
                program(inputs, look_at(counted_of(Call.of(inputs))))
    return [average.result() for _, average in averages]


def rows_that_count(
    activation: torch.Tensor, dim: int, counted: torch.Tensor | None
) -> torch.Tensor:
    """Return an activation as [rows, positions of a dimension], without rows that are padding.

    Args:
        activation: What a consumer is given.
        dim: The dimension.
        counted: Which positions of the batch are no padding (`compressor.padding`).
    """
    last = activation.movedim(dim, -1)
    kept = counted_rows(last.shape[:-1], counted)
    rows = last.reshape(-1, last.shape[-1])
    return rows if kept is None else rows[kept.to(rows.device)]


def root_mean_square(place: Place, moments: Floats) -> Floats:
    """Compute √E[x²] over the channel's positions, [channels]."""
    counts = place.sums(np.ones(len(moments)))
    norms: Floats = np.sqrt(place.sums(moments) / counts)
    return norms


def weight_times_input(place: Place, moments: Floats) -> Floats:
    """Compute Σ |w|·‖x‖ over the consumer's weights, [channels] (Sun et al. 2023, Wanda).

    ‖x‖ is the root mean square of the input that the weight is multiplied with, which differs from
    the paper's norm only by the number of tokens.
    """
    magnitudes = place.weight.abs().movedim(place.member.dim, 0).flatten(1).sum(1)
    return place.sums(magnitudes.cpu().numpy() * np.sqrt(moments))


def fluctuation(place: Place, squares: Floats, averages: Floats) -> Floats:
    """Compute Σw²·Var[x] over the consumer's weights, [channels] (An et al. 2023, FLAP).

    An input that hardly changes can be replaced by its mean, which a bias takes in.

    Args:
        place: The consumer.
        squares: E[x²] of its inputs [positions].
        averages: E[x] of its inputs [positions].
    """
    weights = place.weight.square().movedim(place.member.dim, 0).flatten(1).sum(1)
    variances = np.maximum(squares - averages**2, 0.0)
    return place.sums(weights.cpu().numpy() * variances)
