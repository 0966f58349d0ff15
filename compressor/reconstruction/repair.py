"""Least-squares re-fit of every consumer of dropped channels, in the order of execution.

Each weight is moved so that what its output is added to comes as close as it can to what it was in
the original network, given what the network computes so far with all earlier weights re-fitted
(cf. ThiNet, Luo et al. 2017, section 3.3, and channel pruning, He et al. 2017, equation 4; the
targets are the original's residual sums, so errors of earlier layers are made up for too).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from compressor.axes import Axis, Bools, keep_mask, leaves
from compressor.network import Network
from compressor.reconstruction.consumers import Contraction, consumers
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
from compressor.reconstruction.walk import Script, Walk

RIDGE, OF_SHRINKAGE = 3e-3, 0.1
"""The re-fitted weights are pulled towards what they were, by these shares of the features' mean
energy and of what few samples call for (`Moments.shrinkage`), whichever is more."""

HELD_BYTES = 2_000_000_000
"""Values of halted walks that are kept in memory; batches beyond start anew for each consumer."""


@dataclass(frozen=True)
class Refit:
    """One consumer's weight, and the mean squared change of its output that is wanted of it, before
    the re-fit and after (summed over output channels)."""

    consumer: str
    before: float
    after: float


def refit(
    original: ExportedProgram,
    sliced: ExportedProgram,
    network: Network,
    masks: Mapping[Axis, Bools],
    inputs: Inputs,
    *,
    least_squares: bool = True,
    device: str = "cpu",
    seed: int = 0,
    ridge: float | None = None,
    progress: Progress | None = None,
) -> list[Refit]:
    """Re-fit the weights (and constants) of the sliced program in place.

    Args:
        inputs: Gives the calibration batches anew, the same each time.
        least_squares: False: only the constants, so that means are as they were.
        ridge: Instead of what `RIDGE` and `OF_SHRINKAGE` say.
    """
    report = progress or (lambda *_: None)
    todo = affected(original, network, masks)
    pairs = _Pairs(Script(original, device), Script(sliced, device), inputs)
    done: list[Refit] = []
    for number, consumer in enumerate(todo):
        report(number, len(todo), f"re-fitting {consumer.tensor}")
        moments = _gathered(pairs, consumer, network, masks, seed)
        if moments is not None:
            done.append(_solve(pairs.sliced, consumer, moments, ridge, least_squares=least_squares))
    report(len(todo), len(todo), "")
    _bring_home(pairs.sliced, sliced)
    return done


def affected(
    program: ExportedProgram, network: Network, masks: Mapping[Axis, Bools]
) -> list[Contraction]:
    """Contractions that lose channels or are given what others computed that do, each with a weight
    of its own."""
    cut = {axis for axis, mask in masks.items() if not mask.all()}

    def loses(consumer: Contraction) -> bool:
        dim = network.tensors[consumer.tensor][consumer.layout.contracted]
        return any(axis in cut for axis in leaves(dim))

    found = consumers(program, network.aliases)
    off = {consumer.node for consumer in found if loses(consumer)}
    for node in program.graph_module.graph.nodes:
        if any(source.name in off for source in node.all_input_nodes):
            off.add(node.name)
    return [consumer for consumer in found if not consumer.shared and consumer.node in off]


# -- both networks, side by side -----------------------------------------------------------------


class _Pairs:
    """Walks through the original and the sliced program, one of each per batch. They are halted
    and gone on with where memory allows, and start anew where not."""

    def __init__(self, original: Script, sliced: Script, inputs: Inputs) -> None:
        self.original, self.sliced, self.inputs = original, sliced, inputs
        self.halted: dict[int, tuple[Walk, Walk]] = {}
        self.count = 0
        self.held_bytes = 0

    def at(self, node: str) -> Iterator[tuple[Walk, Walk]]:
        """Every batch's walks, just before a node."""
        if self.count and len(self.halted) == self.count:
            for walks in self.halted.values():
                yield self._advanced(walks, node)
            return
        for number, given in enumerate(self.inputs()):
            self.count = max(self.count, number + 1)
            walks = self.halted.get(number) or (
                self.original.start(given),
                self.sliced.start(given),
            )
            yield self._advanced(walks, node)
            self._hold(number, walks)

    def _hold(self, number: int, walks: tuple[Walk, Walk]) -> None:
        if number not in self.halted:
            size = sum(walk.size_bytes() for walk in walks)
            if self.held_bytes + size > HELD_BYTES:
                return
            self.held_bytes += size
            self.halted[number] = walks

    @staticmethod
    def _advanced(walks: tuple[Walk, Walk], node: str) -> tuple[Walk, Walk]:
        for walk in walks:
            walk.advance(node)
        return walks


def _gathered(
    pairs: _Pairs, consumer: Contraction, network: Network, masks: Mapping[Axis, Bools], seed: int
) -> Moments | None:
    """Moments of the features against the change of output that is wanted."""
    generator = torch.Generator().manual_seed(seed)
    node, target = (pairs.sliced.named[name] for name in (consumer.node, consumer.target))
    original_target = pairs.original.named[consumer.target]
    moments, chain = Moments(), Chain(pairs.sliced, consumer)
    batches = max(pairs.count, 1)
    if not pairs.count:
        given = pairs.inputs()
        batches = len(given) if isinstance(given, Sized) else 1
    for original, sliced in pairs.at(consumer.node):
        whole = original.ahead(consumer.target).values[original_target]
        wanted = _kept(whole, network, consumer.target, masks)
        ahead = sliced.ahead(consumer.target)
        change = chain.pull(ahead, wanted - ahead.values[target])
        blocks = blocks_of(arguments_at(sliced, node))
        features, rows = features_of(sliced, node, consumer, batches, generator, change)
        targets = in_blocks(consumer.layout.outputs(change, rows), blocks)
        moments.add(features, targets)
    moments = moments.over_processes()
    return moments if moments.count else None


def _kept(value: Tensor, network: Network, node: str, masks: Mapping[Axis, Bools]) -> Tensor:
    """The positions of a node's value that the sliced program still has."""
    for dim, expression in enumerate(network.nodes[node].outputs[0]):
        if any(axis in masks for axis in leaves(expression)):
            kept = torch.as_tensor(np.flatnonzero(keep_mask(expression, masks)))
            value = value.index_select(dim, kept.to(value.device))
    return value


# -- the solution ----------------------------------------------------------------------------------


def _solve(
    script: Script,
    consumer: Contraction,
    moments: Moments,
    ridge: float | None,
    *,
    least_squares: bool,
) -> Refit:
    weight = script.tensors[consumer.tensor]
    centred = bool(consumer.constant)
    features, targets = moments.means()
    before = moments.parts["squares"].sum() / moments.count
    step = torch.zeros_like(moments.parts["cross"])
    if least_squares and step.shape[1] <= LARGEST:
        covariance = moments.covariance(centred=centred)
        diagonal = covariance.diagonal(dim1=1, dim2=2)
        share = _ridge(moments, centred=centred) if ridge is None else ridge
        damping = ((share * diagonal.mean(1)).unsqueeze(1) + 1e-30).expand_as(diagonal)
        step = torch.linalg.solve(
            covariance + torch.diag_embed(damping), moments.crossed(centred=centred)
        )
        with torch.no_grad():
            change = consumer.layout.tensor(step.to(weight), weight.shape)
            weight += change.to(weight)
    if centred:
        shift = (targets - (features.unsqueeze(1) @ step).squeeze(1)).reshape(-1)
        constant = script.tensors[consumer.constant]
        with torch.no_grad():
            constant += consumer.sign * shift.to(constant)
    return Refit(consumer.tensor, float(before), _left(moments, step, centred=centred))


def _ridge(moments: Moments, *, centred: bool) -> Tensor:
    return (OF_SHRINKAGE * moments.shrinkage(centred=centred)).clamp(min=RIDGE)


def _left(moments: Moments, step: Tensor, *, centred: bool) -> float:
    """Mean squared error after the step."""
    squares = moments.parts["squares"].sum() / moments.count
    if centred:
        squares = moments.variance().sum()
    crossed = (step * moments.crossed(centred=centred)).sum()
    quadratic = (step * (moments.covariance(centred=centred) @ step)).sum()
    return float(squares - 2 * crossed + quadratic)


def _bring_home(script: Script, program: ExportedProgram) -> None:
    """Tensors that were moved to a device return to the program."""
    with torch.no_grad():
        for name, tensor in program.state_dict.items():
            if name in script.tensors and script.tensors[name] is not tensor:
                tensor.copy_(script.tensors[name])
