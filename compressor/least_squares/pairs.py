"""Walk through the original and the sliced program side by side, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from compressor.calls import Call
from compressor.graph.axes import Axis, Bools, keep_mask
from compressor.graph.network import Network
from compressor.graph.programs.nodes import given_arguments
from compressor.least_squares.cells import write_out
from compressor.least_squares.consumers import Contraction
from compressor.least_squares.drawn_rows import Draw
from compressor.least_squares.layouts import blocks_of
from compressor.least_squares.ledger import rows_of_all, work_of
from compressor.least_squares.memory import Memory, Size
from compressor.least_squares.positions import keep_positions
from compressor.least_squares.recording import Recording, nodes_aimed_at
from compressor.least_squares.walk import Inputs, Script, Walk


def keep_wanted(
    value: Tensor, network: Network, consumer: Contraction, masks: Mapping[Axis, Bools]
) -> Tensor:
    """Return the positions of the value of a consumer's target that a smaller program still has."""
    if not consumer.recurs:
        return keep_positions(value, network.nodes[consumer.target].outputs[0], masks)
    made = network.tensors[consumer.tensor][0]
    kept = torch.as_tensor(keep_mask(made, masks), device=value.device)
    return value[..., consumer.layout.of_rows(kept)]


@dataclass(frozen=True)
class Whole:
    """The network that a repair aims at.

    Attributes:
        program: Its program.
        stands_for: Name of a node of the smaller program -> name of the whole one's node whose
            value is wanted of it; other nodes are to have the values of their namesakes.
        recording: What is known already of its values on the same samples.
    """

    program: ExportedProgram
    stands_for: Mapping[str, str] = field(default_factory=dict)
    recording: Recording | None = None

    def rewired(self, program: ExportedProgram) -> set[str]:
        """Return the names of a shorter program's nodes that read others than they do here."""
        before = write_out(self.program.graph).nodes
        reads = {node.name: [s.name for s in node.all_input_nodes] for node in before}
        nodes = write_out(program.graph).nodes
        return {n.name for n in nodes if reads.get(n.name) != [s.name for s in n.all_input_nodes]}


class Pairs:
    """Walks through the original and the sliced program, a pair for each batch.

    They are halted and gone on with where memory allows, and start anew where it does not.
    """

    def __init__(self, whole: Whole, sliced: Script, inputs: Inputs, memory: Memory) -> None:
        self.original, self.sliced, self.inputs = (
            Script(whole.program, sliced.device),
            sliced,
            inputs,
        )
        self.stands_for, self.recording = whole.stands_for, whole.recording
        taken = 0 if whole.recording is None else whole.recording.bytes
        self.memory = replace(memory, walks=max(0, memory.walks - taken))
        self.samples = next((Call.of(given).samples for given in inputs()), 0)
        self.halted: dict[int, tuple[Walk, Walk]] = {}
        self.bytes: dict[int, int] = {}
        self.count = 0

    def at(
        self, node: str, is_wanted: Callable[[int], bool] = lambda number: True
    ) -> Iterator[tuple[Walk, Walk]]:
        """Yield the pairs of walks of the batches whose numbers are wanted, just before a node."""
        if self.count and len(self.halted) == self.count:
            for number, walks in sorted(self.halted.items()):
                if not is_wanted(number):
                    continue
                self._advance(walks, node)
                self._hold(number, walks)
                yield walks
            return
        number = -1
        for number, given in enumerate(self.inputs()):
            if not is_wanted(number):
                continue
            walks = self.halted.get(number) or self._start(number, given)
            self._advance(walks, node)
            self._hold(number, walks)
            yield walks
        self.count = number + 1

    def wanted(self, consumer: Contraction) -> str:
        """Return the original's node whose value is wanted of a consumer's target."""
        return self.stands_for.get(consumer.target, consumer.target)

    def leave_to_walks(self, consumers: Iterable[Contraction]) -> None:
        """Let halted walks take the memory that none of some consumers' regressions needs."""
        self.memory = self.memory.for_walks([self.size_of(consumer) for consumer in consumers])

    def aim_at(self, consumers: Iterable[Contraction]) -> None:
        """Keep of the original the values that are wanted of some consumers, and no others."""
        wanted = [(consumer, self.wanted(consumer)) for consumer in consumers]
        self.original.lasting = lasting = nodes_aimed_at(self.original, wanted)
        for original, _ in self.halted.values():
            original.kept = {node: original.kept[node] for node in lasting & original.kept.keys()}

    def size_of(self, consumer: Contraction) -> Size:
        """Return a consumer's size as a regression, in the sliced program."""
        blocks = blocks_of(given_arguments(self.sliced.named[consumer.node]))
        return Size(*consumer.matrix(self.sliced.tensors, blocks).shape)

    def work_of(self, consumers: Sequence[Contraction], network: Network) -> list[float]:
        """Estimate the multiply-adds of running each consumer twice and of re-fitting it."""
        macs, batches = network.cost.macs_by_node(), self.batches() or 1
        work = []
        for consumer in consumers:
            size = self.size_of(consumer)
            rows = rows_of_all(network, consumer, size, self.samples, batches, self.memory)
            walked = 2 * macs.get(consumer.node, 0) * batches * self.samples
            work.append(walked + work_of(size, rows, self.memory))
        return work

    def rows_of(self, consumer: Contraction, seed: int) -> int | None:
        """Estimate how many rows a consumer's regression has, from the first batch.

        None where the number of batches is not known.
        """
        batches = self.batches()
        first = next(self.at(consumer.node), None)
        if batches is None or first is None:
            return None
        walk, node = first[1], self.sliced.named[consumer.node]
        out = walk.shape_of(node)
        draw = Draw(batches, torch.Generator().manual_seed(seed), self.memory)
        return batches * len(draw.rows(walk, consumer, out))

    def batches(self) -> int | None:
        """Return the number of batches, or None where it is not known."""
        if self.count:
            return self.count
        given = self.inputs()
        return len(given) if isinstance(given, Sized) else None

    def _start(self, number: int, given: Any) -> tuple[Walk, Walk]:
        known = None if self.recording is None else self.recording.walk(self.original, number)
        return known or self.original.start(given), self.sliced.start(given)

    def _hold(self, number: int, walks: tuple[Walk, Walk]) -> None:
        """Hold walks as they are, if all that are held fit the memory."""
        size = sum(walk.size_bytes() for walk in walks)
        self.bytes.pop(number, None)
        if sum(self.bytes.values()) + size > self.memory.walks:
            self.halted.pop(number, None)
        else:
            self.bytes[number], self.halted[number] = size, walks

    @staticmethod
    def _advance(walks: tuple[Walk, Walk], node: str) -> tuple[Walk, Walk]:
        for walk in walks:
            walk.advance(node)
        return walks
