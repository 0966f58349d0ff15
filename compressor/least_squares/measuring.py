"""Measure the regressions of groups' consumers on the original network, within a given memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from compressor.calls import Call
from compressor.errors import UsageError
from compressor.graph.network import Network
from compressor.graph.programs.nodes import given_arguments
from compressor.least_squares.chain import Chain
from compressor.least_squares.consumers import Contraction, consumers
from compressor.least_squares.drawn_rows import Draw, in_blocks
from compressor.least_squares.elimination import RIDGE
from compressor.least_squares.layouts import blocks_of
from compressor.least_squares.ledger import WITH_GRADIENTS, Ledger, rows_of_all, work_of
from compressor.least_squares.memory import (
    Size,
    Workspace,
    columns_to_eliminate,
    rows_to_keep,
    sketched,
)
from compressor.least_squares.moments import Moments
from compressor.least_squares.pieces import (
    Channels,
    GroupConsumers,
    Name,
    Piece,
    PieceRegression,
    feature_channels,
    feature_tensors,
)
from compressor.least_squares.rows import Rows
from compressor.least_squares.salience import gradients_at_once, salience, samples_of
from compressor.least_squares.walk import Inputs, Script, Walk, arguments_at
from compressor.processes import processes
from compressor.records import Group, Trace


def _alone(covariance: Tensor, weight: Tensor, of: Channels) -> tuple[Tensor, Tensor]:
    """Return a regression in which no feature makes up for another, and each weight counts alike.

    What other units make up for through large weights comes back amplified through the states.
    Errors are shares of what each weight adds to the sums: those of the states come back at each
    step, however small they are beside what the inputs add.

    Args:
        covariance: [blocks, features, features].
        weight: [blocks, features, outputs].
        of: The number of each feature's weight, [features].
    """
    energies = covariance.diagonal(dim1=1, dim2=2)
    each = (energies * weight.square().sum(2)).sum(0)
    sums = torch.zeros(int(of.max()) + 1, dtype=each.dtype).index_add(0, torch.as_tensor(of), each)
    scale = sums.clamp(min=1e-30).rsqrt()[torch.as_tensor(of)]
    return torch.diag_embed(energies), weight * scale.unsqueeze(1)


class Measured:
    """What was gathered for some groups' pieces; each becomes a regression when it is needed."""

    def __init__(
        self,
        gathered: dict[Name, Moments | Rows],
        measure: Callable[[Piece, Moments | Rows], PieceRegression],
    ) -> None:
        self.gathered, self.measure = gathered, measure
        self.kept: dict[Name, PieceRegression] = {}

    def regression(self, piece: Piece, *, again: bool) -> PieceRegression:
        """Return a piece's regression; it is kept where it is needed again."""
        name = piece.name
        found = self.kept.pop(name, None) or self.measure(piece, self.gathered.pop(name))
        if again:
            self.kept[name] = found
        return found


class Measurer:
    """Measures the regressions of groups' consumers.

    It holds what is the same for all groups: the network, its consumers, and what errors of theirs
    do to the network's outputs (`find_salience`, which comes first).
    """

    def __init__(
        self,
        trace: Trace,
        network: Network,
        inputs: Inputs,
        workspace: Workspace,
    ) -> None:
        self.network, self.inputs, self.seed = network, inputs, workspace.seed
        self.memory, self.trace = workspace.memory, trace
        self.script = Script(trace.program, workspace.device)
        batches = inputs()
        self.batches = len(batches) if isinstance(batches, Sized) else 0
        given = iter(batches)
        first = list(itertools.islice(given, 1))
        self.samples = Call.of(first[0]).samples if first else 0
        self.given = itertools.chain(first, given)
        members = {
            m.tensor for g in network.groups if g.size > 1 for m in g.members if m.contracted
        }
        self.consumers: dict[str, list[Contraction]] = {}
        self.salient: dict[str, Tensor] = {}
        for consumer in consumers(trace.program, network.aliases):
            if members & {*consumer.tensors}:
                for tensor in consumer.tensors:
                    self.consumers.setdefault(tensor, []).append(consumer)

    @cached_property
    def _gradients_at_once(self) -> tuple[int | None, int | None]:
        return gradients_at_once(self.trace, self.memory)

    @property
    def _samples_with_gradients(self) -> int:
        _, memory = self._gradients_at_once
        return samples_of(self.all_samples, in_stretches=memory is not None)

    @property
    def all_samples(self) -> int:
        """Return the number of samples of all batches, as if those were of one size."""
        return max(self.batches, 1) * self.samples

    def work_of(self, packs: Sequence[Sequence[GroupConsumers]]) -> float:
        """Estimate the multiply-adds of finding the salience and measuring packs of groups."""
        each = self.network.cost.macs()
        every = self.all_samples
        gathered = sum(p.work for pack in packs for share in pack for p, _ in share.pieces)
        looked_at = WITH_GRADIENTS * min(every, self._samples_with_gradients) + len(packs) * every
        return each * looked_at + gathered

    def find_salience(self, ledger: Ledger) -> None:
        """Find what errors of each consumer do to the outputs."""
        what = "measuring what errors do to the outputs"
        ledger.begin(what)
        each = WITH_GRADIENTS * self.network.cost.macs()
        at_once, memory = self._gradients_at_once
        self.salient = salience(
            self.script,
            [c for some in self.consumers.values() for c in some if not c.recurs],
            self.given,
            at_once=at_once,
            memory=memory,
            seed=self.seed,
            most=self._samples_with_gradients,
            progress=lambda samples: ledger.add(each * samples, what),
        )

    def share(self, group: Group) -> GroupConsumers:
        """Split a group's consumers into pieces, as large as the memory allows."""
        members = [m for m in group.members if m.contracted] or list(group.members)
        known: dict[str, tuple[Contraction, Size, Channels]] = {}
        weighed = []
        for tensor in dict.fromkeys(member.tensor for member in members):
            regular = [r for c in self.consumers.get(tensor, ()) if (r := self._regular(c, group))]
            known |= {each[0].node: each for each in regular}
            if not regular:
                weighed.append(tensor)
        sizes = sketched([size for _, size, _ in known.values()], self.memory)
        known = {
            node: (consumer, size, channel)
            for (node, (consumer, _, channel)), size in zip(known.items(), sizes, strict=True)
        }
        again = [size for _, size, channel in known.values() if (channel < 0).any()]
        width = columns_to_eliminate([size for _, size, _ in known.values()], self.memory, again)
        pieces = [
            piece for each in known.values() for piece in self._pieces(*each, width, group.name)
        ]
        return GroupConsumers(group, pieces, weighed)

    def _pieces(
        self, consumer: Contraction, size: Size, channel: Channels, width: int, group: str
    ) -> Iterator[tuple[Piece, Channels]]:
        """Yield a consumer whole, or columns of as many channels at a time as fit into `width`."""
        rows = self._rows_of(consumer, size)
        if width >= size.features or size.rows is not None:
            work = work_of(size, rows, self.memory)
            yield Piece((consumer.node, "", 0), consumer, size, work), channel
            return
        each = int((channel == 0).sum())
        step = max(1, width // each)
        for first in range(0, int(channel.max()) + 1, step):
            columns = np.flatnonzero((channel >= first) & (channel < first + step))
            part = replace(size, features=len(columns))
            name = consumer.node, group, first
            work = work_of(part, rows, self.memory)
            yield Piece(name, consumer, part, work, torch.as_tensor(columns)), channel[columns]

    def _regular(
        self, consumer: Contraction, group: Group
    ) -> tuple[Contraction, Size, Channels] | None:
        """Return the consumer if all channels of the group have as many features, else None."""
        node = self.script.named[consumer.node]
        blocks = blocks_of(given_arguments(node))
        size = Size(*consumer.matrix(self.script.tensors, blocks).shape)
        channel = feature_channels(self.network, consumer, group, size.features)
        if not consumer.recurs:
            rows = rows_to_keep(size, self._rows_of(consumer, size), self.memory)
            size = replace(size, rows=rows)
        counts = np.bincount(channel[channel >= 0], minlength=group.size)
        is_regular = counts.min() > 0 and counts.min() == counts.max()
        return (consumer, size, channel) if is_regular else None

    def _rows_of(self, consumer: Contraction, size: Size) -> int | None:
        if processes() > 1:
            return None
        return rows_of_all(self.network, consumer, size, self.samples, self.batches, self.memory)

    def __call__(self, shares: Sequence[GroupConsumers], ledger: Ledger) -> Measured:
        """Measure the regressions of all pieces of some groups, in one pass over the data."""
        pieces = list({p.name: p for share in shares for p, _ in share.pieces}.values())
        place = self.script.place
        pieces.sort(key=lambda piece: place[piece.consumer.node])
        gathered = {piece.name: piece.gather() for piece in pieces}
        self._pass(pieces, gathered, ledger)
        if pieces and processes() == 1 and not any(each.count for each in gathered.values()):
            raise UsageError("the data gave no batch", where="--data", next_step="give more data")
        return Measured(gathered, self._measure_piece)

    def _pass(
        self, pieces: Sequence[Piece], gathered: Mapping[Name, Moments | Rows], ledger: Ledger
    ) -> None:
        consumers = {piece.consumer.node: piece.consumer for piece in pieces}
        chains = {node: Chain(self.script, consumer) for node, consumer in consumers.items()}
        total, macs = max(self.batches, 1), self.network.cost.macs()
        draws = {
            node: Draw(total, torch.Generator().manual_seed(self.seed), self.memory)
            for node in consumers
        }
        for given in self.inputs():
            walk = self.script.start(given)
            for node, parts in itertools.groupby(pieces, lambda piece: piece.consumer.node):
                walk.advance(node)
                pairs = [(piece, gathered[piece.name]) for piece in parts]
                self._look(pairs, chains[node], walk, draws[node])
                work = sum(piece.work for piece, _ in pairs)
                ledger.add(work / total, "measuring consumers")
            ledger.add(macs * self.samples, "measuring consumers")

    def _look(
        self,
        parts: Sequence[tuple[Piece, Moments | Rows]],
        chain: Chain,
        walk: Walk,
        draw: Draw,
    ) -> None:
        """Add drawn rows of a consumer's features and targets to what its parts gather."""
        consumer, nodes = parts[0][0].consumer, self.script.named
        ahead = walk.ahead(consumer.target, remember=True)
        disturbed = chain.pull(ahead, ahead.values[nodes[consumer.target]])
        features, rows = draw.features(walk, consumer, disturbed)
        blocks = blocks_of(arguments_at(walk, nodes[consumer.node]))
        targets = in_blocks(consumer.layout.outputs(disturbed, rows), blocks)
        for piece, gathered in parts:
            columns = piece.columns
            some = features if columns is None else features[:, :, columns.to(features.device)]
            gathered.add(some, targets)

    def _measure_piece(self, piece: Piece, gathered: Moments | Rows) -> PieceRegression:
        gathered, consumer = gathered.over_processes(), piece.consumer
        matrix = consumer.matrix(self.script.tensors, piece.size.blocks).detach().cpu()
        if piece.columns is not None:
            matrix = matrix[:, piece.columns]
        factors = _in_units(gathered.variance(), self.salient.get(consumer.node))
        centred = bool(consumer.constant) and not consumer.recurs
        features, shrinkage = gathered.settle(centred=centred)
        weight, by_rows = self._weigh(piece, matrix, factors), piece.size.rows is not None
        if consumer.recurs:
            of = feature_tensors(self.network, consumer, piece.columns)
            features, weight = _alone(features, weight, of)
        return PieceRegression(features, weight, shrinkage.clamp(min=RIDGE), by_rows)

    def _weigh(self, piece: Piece, matrix: Tensor, factors: Tensor) -> Tensor:
        """Return the weight in units of what it may disturb, [blocks, features, outputs].

        Where there are too many outputs for the memory, random combinations stand for them.
        """
        size = piece.size
        if size.sketch is None:
            return matrix.double() * factors
        generator = torch.Generator().manual_seed(self.seed)
        mixing = torch.randn(size.outputs, size.sketch, generator=generator)
        mixing /= math.sqrt(size.sketch)
        return (matrix @ (factors.float().transpose(1, 2) * mixing)).double()


def _in_units(variance: Tensor, salient: Tensor | None) -> Tensor:
    """Return the factor of each output column, [blocks, 1, outputs].

    Multiplied by it, squared errors become shares of the target's variance, both weighed by what
    they do to the network's outputs (where that is not known, all alike).
    """
    weights = torch.ones(()) if salient is None else salient.reshape(variance.shape)
    whole = (weights * variance).sum().clamp(min=1e-30)
    return (weights / whole).sqrt().expand_as(variance).unsqueeze(1)
