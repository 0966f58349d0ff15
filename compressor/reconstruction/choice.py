"""Scores by reconstruction: what the rest of the network cannot make up for, per unit of cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from compressor.axes import coordinates
from compressor.network import Network
from compressor.programs.lifting import stored_tensors
from compressor.reconstruction.consumers import Contraction, consumers
from compressor.reconstruction.elimination import RIDGE, Elimination, Regression, eliminate
from compressor.reconstruction.layouts import blocks_of
from compressor.reconstruction.moments import (
    LARGEST,
    Chain,
    Inputs,
    Moments,
    Progress,
    arguments_at,
    features_of,
    in_blocks,
)
from compressor.reconstruction.salience import salience
from compressor.reconstruction.walk import Script, Walk
from compressor.records import Group, Trace

Floats = npt.NDArray[np.float64]

BUDGET_BYTES = 2_000_000_000
"""Moments that are gathered in one pass over the data; more consumers take more passes."""


@dataclass(frozen=True)
class Measured:
    """A consumer's regression on the original network, as it is."""

    consumer: Contraction
    moments: Tensor
    weight: Tensor
    ridge: Tensor

    def regression(self, network: Network, group: Group) -> Regression:
        """For one group; losses are shares of the variance of the consumer's target."""
        channel = feature_channels(network, self.consumer, group, self.moments.shape[1])
        return Regression(self.moments, self.weight, channel, self.ridge)


def feature_channels(
    network: Network, consumer: Contraction, group: Group, features: int
) -> npt.NDArray[np.int64]:
    """The channel of the group that each feature belongs to; -1 for none."""
    shape = network.tensors[consumer.tensor]
    kernel = math.prod(dim.size for dim in shape[2:])
    channel = coordinates(shape[consumer.layout.contracted], network.axes[group.name])
    return np.repeat(channel[: features // kernel], kernel)


def reconstruction_scores(
    trace: Trace,
    network: Network,
    inputs: Inputs,
    *,
    of: str | None = "macs",
    device: str = "cpu",
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Floats]:
    """Per group one number per channel: the error that its elimination adds, relative to the
    variance of what the consumers disturb, per share of the network's cost that it saves.

    Consumers that are no regression here (recurrent layers, products of activations) count with
    the share of their weights' energy.

    Args:
        inputs: Gives the calibration batches anew, each a call of the network.
        of: The unit of cost; None: errors as they are, where the budget weighs what they save.
    """
    report = progress or (lambda *_: None)
    groups = {group.name: group for group in network.groups if group.size > 1}
    measured = measure(trace, network, inputs, device=device, seed=seed, progress=report)
    scores: dict[str, Floats] = {}
    for done, group in enumerate(groups.values()):
        report(done, len(groups), f"ordering the channels of {group.name}")
        order = _order(trace, network, group, measured)
        scores[group.name] = order.scores() / _price(network, group, of)
    report(len(groups), len(groups), "")
    alone = {g.name: np.ones(g.size) for g in network.groups if g.name not in groups}
    return scores | alone


def _price(network: Network, group: Group, of: str | None) -> float:
    """Share of the network's cost that one channel of a group is."""
    if of is None:
        return 1.0
    whole = network.cost.of(of)
    less = network.cost.of(of, network.sizes({group.name: group.size - 1}))
    return max(whole - less, 1) / whole


def _order(
    trace: Trace, network: Network, group: Group, measured: Mapping[str, Sequence[Measured]]
) -> Elimination:
    regressions, energies = [], []
    members = [m for m in group.members if m.contracted] or list(group.members)
    for tensor in dict.fromkeys(member.tensor for member in members):
        found = measured.get(tensor, ())
        regressions += [m.regression(network, group) for m in found if _fits(m, network, group)]
        if not any(_fits(m, network, group) for m in found):
            energies.append(_energy(trace, network, group, tensor))
    if not regressions:
        total = np.sum(energies, axis=0)
        order = np.argsort(total, kind="stable")
        return Elimination(order, total[order])
    found_order = eliminate(regressions, group.size)
    if energies:
        total = np.sum(energies, axis=0)
        errors = found_order.errors + total[found_order.order]
        order = np.argsort(errors, kind="stable")
        return Elimination(found_order.order[order], errors[order])
    return found_order


def _fits(measured: Measured, network: Network, group: Group) -> bool:
    channel = feature_channels(network, measured.consumer, group, measured.moments.shape[1])
    counts = np.bincount(channel[channel >= 0], minlength=group.size)
    return bool(counts.min() > 0 and counts.min() == counts.max())


def _energy(trace: Trace, network: Network, group: Group, tensor: str) -> Floats:
    """Share of a weight's energy in each channel."""
    weight = stored_tensors(trace.program)[tensor].detach().double().square()
    total = np.zeros(group.size)
    for member in (m for m in group.members if m.tensor == tensor):
        others = [d for d in range(weight.dim()) if d != member.dim]
        sums = (weight.sum(others) if others else weight).cpu().numpy()
        index = coordinates(network.tensors[tensor][member.dim], network.axes[group.name])
        inside = index >= 0
        total += np.bincount(index[inside], weights=sums[inside], minlength=group.size)
    return total / max(float(weight.sum()), 1e-30)


# -- measuring -------------------------------------------------------------------------------------


def measure(
    trace: Trace,
    network: Network,
    inputs: Inputs,
    *,
    device: str,
    seed: int,
    progress: Progress,
) -> dict[str, list[Measured]]:
    """The regressions of all consumers of groups, by the name of their weight."""
    script = Script(trace.program, device)
    progress(0, 1, "measuring what errors do to the outputs")
    members = {m.tensor for g in network.groups if g.size > 1 for m in g.members if m.contracted}
    wanted = [c for c in consumers(trace.program, network.aliases) if c.tensor in members]
    divisible = trace.batch_symbol is not None
    salient = salience(script, wanted, inputs(), is_divisible=divisible, seed=seed)
    found: dict[str, list[Measured]] = {}
    parts = list(_parts(wanted, script))
    for number, part in enumerate(parts, start=1):
        text = "measuring consumers" + (f", part {number} of {len(parts)}" if parts[1:] else "")
        for consumer, moments in _pass(script, part, inputs, seed, progress, text):
            weight = script.tensors[consumer.tensor].detach().cpu().double()
            blocks = len(moments.parts["outer"])
            column = _in_units(moments, salient.get(consumer.node))
            matrix = consumer.layout.matrix(weight, blocks) * column
            centred = bool(consumer.constant)
            covariance = moments.covariance(centred=centred)
            ridge = moments.shrinkage(centred=centred).clamp(min=RIDGE)
            found.setdefault(consumer.tensor, []).append(
                Measured(consumer, covariance, matrix, ridge)
            )
    return found


def _in_units(moments: Moments, salient: Tensor | None) -> Tensor:
    """Factors per output column, (blocks, 1, outputs), by which squared errors become shares of
    the target's variance, both weighed by what they do to the network's outputs (where that is
    not known, all alike)."""
    variance = moments.variance()
    weights = torch.ones(()) if salient is None else salient.reshape(variance.shape)
    whole = (weights * variance).sum().clamp(min=1e-30)
    return (weights / whole).sqrt().expand_as(variance).unsqueeze(1)


def _parts(wanted: Sequence[Contraction], script: Script) -> Iterator[list[Contraction]]:
    """Consumers whose moments fit into the budget together; too large ones are left out."""
    part: list[Contraction] = []
    size = 0
    for consumer in wanted:
        weight = script.tensors[consumer.tensor]
        features = weight.numel() // weight.shape[1 - consumer.layout.contracted]
        if features > LARGEST:
            continue
        if part and size + 8 * features**2 > BUDGET_BYTES:
            yield part
            part, size = [], 0
        part.append(consumer)
        size += 8 * features**2
    if part:
        yield part


def _pass(
    script: Script,
    part: Sequence[Contraction],
    inputs: Inputs,
    seed: int,
    progress: Progress,
    text: str,
) -> list[tuple[Contraction, Moments]]:
    generator = torch.Generator().manual_seed(seed)
    nodes = script.named
    found = {consumer.node: Moments() for consumer in part}
    chains = {consumer.node: Chain(script, consumer) for consumer in part}
    batches = inputs()
    total = len(batches) if isinstance(batches, Sized) else 0
    for done, given in enumerate(batches):
        progress(done, total, text)
        walk = script.start(given)
        for consumer in part:
            walk.advance(consumer.node)
            chain = chains[consumer.node]
            _look(chain, walk, consumer, nodes, found[consumer.node], max(total, 1), generator)
    return [(c, found[c.node].over_processes()) for c in part]


def _look(
    chain: Chain,
    walk: Walk,
    consumer: Contraction,
    nodes: Mapping[str, Any],
    moments: Moments,
    batches: int,
    generator: torch.Generator,
) -> None:
    ahead = walk.ahead(consumer.target)
    disturbed = chain.pull(ahead, ahead.values[nodes[consumer.target]])
    node = nodes[consumer.node]
    blocks = blocks_of(arguments_at(walk, node))
    features, rows = features_of(walk, node, consumer, batches, generator, disturbed)
    moments.add(features, in_blocks(consumer.layout.outputs(disturbed, rows), blocks))
