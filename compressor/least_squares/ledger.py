"""Count what choice and repair have to compute, and tell how much of it is done."""

from __future__ import annotations

import math
from collections.abc import Callable

from compressor.graph.network import BATCH, Network, with_batch
from compressor.least_squares.consumers import Contraction
from compressor.least_squares.drawn_rows import rows_drawn
from compressor.least_squares.layouts import at_channels
from compressor.least_squares.memory import Memory, Size

DOUBLE_PRECISION = 2
"""How much longer a multiply-add takes in double precision."""

WITH_GRADIENTS = 3
"""How much longer a pass takes that also finds gradients."""

Tell = Callable[[int, int, str], None]


class Ledger:
    """Adds up multiply-adds that are done, and tells what share of all they are."""

    def __init__(self, tell: Tell, total: float) -> None:
        """Keep whom to tell, and how many multiply-adds there are in all."""
        self.tell, self.total, self.done = tell, total, 0.0

    def begin(self, what: str) -> None:
        """Tell what comes next."""
        self.tell(math.floor(self.done), math.ceil(self.total), what)

    def add(self, work: float, what: str) -> None:
        """Count multiply-adds as done, and tell it."""
        self.done = min(self.done + work, self.total)
        self.begin(what)

    def reach(self, done: float) -> None:
        """Count so many multiply-adds as done in all, and tell it."""
        self.done = done
        self.begin("")


def rows_of_all(
    network: Network, consumer: Contraction, size: Size, samples: int, batches: int, memory: Memory
) -> int | None:
    """Return how many rows a consumer's regression takes of all batches together.

    Args:
        network: The network that the consumer is of.
        consumer: The consumer.
        size: Its size as a regression.
        samples: Samples of a batch.
        batches: Number of batches; 0 where it is not known.
        memory: Bounds the rows.

    Returns:
        An upper bound, which is met where all batches are of one size. None where the number of
        batches is not known, a size is free beside the batch, or the consumer is a recurrent cell's
        sum, which the analysis has no node of.
    """
    if consumer.node not in network.nodes:
        return None
    shape = network.nodes[consumer.node].outputs[0]
    sizes = [dim.size for dim in shape]
    del sizes[at_channels(len(sizes), consumer.layout)]
    if not batches or math.prod(sizes) % BATCH**2 == 0:
        return None
    positions = math.prod(with_batch(size, samples) for size in sizes)
    return batches * rows_drawn(positions, size.features, size.blocks, batches, memory)


def work_of(size: Size, rows: int | None, memory: Memory) -> float:
    """Estimate the multiply-adds of gathering and solving a consumer's regression."""
    rows = memory.wanted.usual if rows is None else rows
    short, long = sorted((rows, size.features))
    return size.blocks * short**2 * (long + DOUBLE_PRECISION * short)
