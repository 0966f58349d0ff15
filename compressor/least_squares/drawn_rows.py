"""Draw which output positions a consumer's regression takes, and return their features."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.least_squares.consumers import Contraction
from compressor.least_squares.layouts import blocks_of, row_count, row_grid
from compressor.least_squares.memory import Memory
from compressor.least_squares.walk import Walk, arguments_at
from compressor.padding import counted_rows


def rows_drawn(total: int, width: int, blocks: int, batches: int, memory: Memory) -> int:
    """Return how many of a batch's output positions take part.

    Args:
        total: How many there are.
        width: Number of features of each block of the regression.
        blocks: Number of its blocks.
        batches: How many batches share the wanted number of positions.
        memory: Says how many are wanted over all batches, and the most of one.
    """
    each = math.ceil(memory.wanted.of(width) / max(1, batches))
    return min(total, each, memory.most_rows(width * blocks))


@dataclass(frozen=True)
class Draw:
    """How the rows of a regression are drawn, batch by batch.

    Attributes:
        batches: How many batches share the wanted number of rows.
        generator: Draws them; it goes on from batch to batch.
        memory: Bounds their number.
    """

    batches: int
    generator: torch.Generator
    memory: Memory

    def rows(self, walk: Walk, consumer: Contraction, out: Tensor) -> Tensor:
        """Draw which rows of a batch take part, in ascending order; padded ones never do.

        Args:
            walk: A walk just before the consumer.
            consumer: What is re-fitted.
            out: The consumer's output; the rows are returned on its device.
        """
        weights = [walk.script.tensors[name] for name in consumer.tensors]
        width = sum(weight.numel() // weight.shape[0] for weight in weights)
        blocks = blocks_of(arguments_at(walk, walk.script.named[consumer.node]))
        counted = counted_rows(row_grid(out, consumer.layout), walk.counted)
        total = row_count(out, consumer.layout) if counted is None else len(counted)
        wanted = rows_drawn(total, width, blocks, self.batches, self.memory)
        if wanted >= total:
            rows = torch.arange(total)
        else:
            rows = torch.randint(total, (wanted,), generator=self.generator).sort().values
        rows = rows.to(out.device)
        return rows if counted is None else counted.to(out.device)[rows]

    def features(self, walk: Walk, consumer: Contraction, out: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of drawn rows, [blocks, rows, features], and the rows."""
        rows = self.rows(walk, consumer, out)
        arguments = arguments_at(walk, walk.script.named[consumer.node])
        return consumer.layout.features(arguments, rows), rows


def in_blocks(values: Tensor, blocks: int) -> Tensor:
    """Reshape values [rows, all outputs] to [blocks, rows, outputs]."""
    return values.reshape(len(values), blocks, -1).transpose(0, 1)
