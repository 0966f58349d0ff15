"""Score by Fisher pruning: how much the loss depends on a channel, sample by sample.

Every channel gets a gate of 1 in front of its consumers, the same for all of them (coupled channels
go together). The derivative of a sample's loss by the gate is Σ x·∂L/∂x over the channel's
positions, which is also Σ w·∂L/∂w over the consumers' weights; the score is the mean of its square.
One backward pass per batch gives all of them, since samples do not see each other in eval mode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from compressor.calls import Call
from compressor.graph.network import Consumer, Network
from compressor.score.averages import Average
from compressor.score.criterion import Floats, Loss, Material, Rows
from compressor.score.places import Place, places
from compressor.score.traced_program import Program, told_apart

Slopes = Mapping[tuple[str, int], Sequence[Floats]]
"""(parameter, dimension) -> for each use [samples, positions]: how each sample's loss changes
with the gates in front of it."""


def fisher(material: Material) -> Rows:
    """Compute the mean over samples of the squared derivative by each channel's gate.

    Where samples cannot be told apart (a static batch, a branch without samples), the loss of the
    whole batch stands for one sample.

    Returns:
        One row for each group that has a consumer.

    Raises:
        CompressorError: The network fails on a batch, or the inputs are not the traced call's.
    """
    data, network = material.data, material.network
    gated = _Gated(Program(data.trace, network.consumers, data.device), network)
    consuming = {
        name: [p for p in there if (p.member.tensor, p.member.dim) in gated.sizes]
        for name, there in places(network, material.tensors).items()
    }
    average = Average({name: there[0].channels for name, there in consuming.items() if there})
    for inputs, target in data.batches if gated.sizes else ():
        with told_apart(inputs):
            slopes = gated.slopes(inputs, target, data.loss)
        for name, there in consuming.items():
            if there:
                of_gates = _of_gates(there, slopes)
                average.add(name, np.square(of_gates).mean(0), len(of_gates))
    means = average.result()
    return {name: [means[name]] if name in means else [] for name in consuming}


def _of_gates(consumers: Sequence[Place], slopes: Slopes) -> Floats:
    """Return the derivatives by the gates, which all consumers share, [samples, channels]."""
    pairs = [
        (place, slope)
        for place in consumers
        for slope in slopes[place.member.tensor, place.member.dim]
    ]
    samples = min(len(slope) for _, slope in pairs)  # one, where some cannot tell them apart
    rows = [
        np.stack([place.sums(row) for row in slope.reshape(samples, -1, slope.shape[1]).mean(1)])
        for place, slope in pairs
    ]
    summed: Floats = np.sum(rows, axis=0)
    return summed


class _Gated:
    """A program with gates in front of its consumers."""

    def __init__(self, program: Program, network: Network) -> None:
        self.program = program
        self.sizes = {
            (c.tensor, c.dim): network.tensors[c.tensor][c.dim].size for c in program.consumers
        }

    def slopes(self, inputs: Any, target: Any, loss: Loss) -> Slopes:
        """Return the derivatives of each sample's loss by the gates."""
        gates: list[tuple[Consumer, torch.Tensor]] = []

        def gate(consumer: Consumer, activation: torch.Tensor) -> torch.Tensor:
            shape = [1] * activation.dim()
            for dim in (self.program.sample_dimension(consumer), consumer.at):
                if dim is not None:
                    shape[dim] = activation.shape[dim]
            gates.append((consumer, activation.new_ones(shape).requires_grad_()))
            return activation * gates[-1][1]

        with torch.enable_grad():
            outputs = self.program(inputs, gate)
            device = self.program.device
            target = pytree.tree_map_only(torch.Tensor, lambda x: x.to(device), target)
            gradients = torch.autograd.grad(
                loss(outputs, target), [opened for _, opened in gates], materialize_grads=True
            )
        slopes: dict[tuple[str, int], list[Floats]] = {}
        for (consumer, _), slope in zip(gates, gradients, strict=True):
            there = slopes.setdefault((consumer.tensor, consumer.dim), [])
            there.append(self._per_sample(consumer, slope, Call.of(inputs).samples))
        return slopes

    def _per_sample(self, consumer: Consumer, slope: torch.Tensor, samples: int) -> Floats:
        """Return the derivatives [samples, positions]; one sample if none is told apart."""
        size = self.sizes[consumer.tensor, consumer.dim]
        at, dim = consumer.at, self.program.sample_dimension(consumer)
        if dim is None or slope.shape[dim] % samples:
            samples = 1
        rows = slope.movedim(at, -1) if dim is None else slope.movedim((dim, at), (0, -1))
        # the loss is the mean over the samples, so each one's own is as many times as large
        summed = rows.reshape(samples, -1, size).sum(1).cpu().double() * samples
        slopes: Floats = summed.numpy()
        return slopes
