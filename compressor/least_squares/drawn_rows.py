"""Draw which output positions a consumer's regression takes, and return their features."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from compressor.graph.programs.nodes import argument, schema_names
from compressor.least_squares.consumers import Contraction
from compressor.least_squares.layouts import blocks_of, row_count, row_grid
from compressor.least_squares.memory import Memory
from compressor.least_squares.walk import Walk
from compressor.padding import counted_rows

Inputs = Callable[[], Iterable[Any]]
"""A function that gives the calibration batches anew, the same each time: calls, or positional
inputs alone."""


ROWS_PER_FEATURE, MOST_PER_FEATURE = 4, 256
"""How many output positions a regression takes for each of its features, drawn at random:
`Memory.usual_rows` in all, as long as that is between these numbers. A fit of so many weights per
output misses by about the inverse of them more than it has to."""


def arguments_at(walk: Walk, node: Node) -> dict[str, Any]:
    """Return the values of the arguments that a node is about to be called with, by name."""
    given = {name: argument(node, name) for name in schema_names(node)}
    values: dict[str, Any] = map_arg(given, walk.values.__getitem__)
    return values


def draw_rows(
    total: int, width: int, blocks: int, batches: int, generator: torch.Generator, memory: Memory
) -> Tensor:
    """Draw which of a batch's output positions take part, in ascending order.

    Args:
        total: How many there are.
        width: Number of features of each block of the regression.
        blocks: Number of its blocks.
        batches: How many batches share the wanted number of positions.
        generator: Draws them.
        memory: Says how many are usual over all batches, and the most of one.
    """
    wanted = rows_drawn(total, width, blocks, batches, memory)
    if wanted >= total:
        return torch.arange(total)
    return torch.randint(total, (wanted,), generator=generator).sort().values


def rows_drawn(total: int, width: int, blocks: int, batches: int, memory: Memory) -> int:
    """Return how many of a batch's output positions take part (see `draw_rows`)."""
    wanted = min(memory.usual_rows, MOST_PER_FEATURE * width)
    wanted = max(wanted, ROWS_PER_FEATURE * width)
    return min(total, math.ceil(wanted / max(1, batches)), memory.most_rows(width * blocks))


def features_of(
    walk: Walk,
    node: Node,
    consumer: Contraction,
    batches: int,
    generator: torch.Generator,
    out: Tensor,
    memory: Memory,
) -> tuple[Tensor, Tensor]:
    """Return the features of some rows, [blocks, rows, features], and the rows' positions."""
    rows = rows_at(walk, node, consumer, batches, generator, out, memory)
    return consumer.layout.features(arguments_at(walk, node), rows), rows


def rows_at(
    walk: Walk,
    node: Node,
    consumer: Contraction,
    batches: int,
    generator: torch.Generator,
    out: Tensor,
    memory: Memory,
) -> Tensor:
    """Draw which rows of a batch take part in a consumer's regression; padded ones never do.

    Args:
        walk: A walk just before the consumer.
        node, consumer: The consumer.
        batches: How many batches share the wanted number of rows.
        generator: Draws the rows.
        out: The consumer's output; the rows are returned on its device.
        memory: Bounds the number of rows.
    """
    arguments = arguments_at(walk, node)
    weights = [walk.script.tensors[name] for name in consumer.tensors]
    width = sum(weight.numel() // weight.shape[0] for weight in weights)
    blocks = blocks_of(arguments)
    counted = counted_rows(row_grid(out, consumer.layout), walk.counted)
    count = row_count(out, consumer.layout) if counted is None else len(counted)
    rows = draw_rows(count, width, blocks, batches, generator, memory).to(out.device)
    return rows if counted is None else counted.to(out.device)[rows]


def in_blocks(values: Tensor, blocks: int) -> Tensor:
    """Reshape values [rows, all outputs] to [blocks, rows, outputs]."""
    return values.reshape(len(values), blocks, -1).transpose(0, 1)
