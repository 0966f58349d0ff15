"""Say what a group's regressions are: a consumer each, or the columns of some of its channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from compressor.graph.axes import coordinates
from compressor.graph.network import Network
from compressor.least_squares.consumers import Contraction
from compressor.least_squares.elimination import Regression
from compressor.least_squares.memory import Size, bytes_to_eliminate
from compressor.least_squares.moments import Moments
from compressor.least_squares.rows import Rows
from compressor.records import Group

Channels = npt.NDArray[np.int64]
Name = tuple[str, str, int]


@dataclass(frozen=True)
class Piece:
    """Columns of a consumer whose second moments are held together.

    Attributes:
        name: Its own name: the consumer's node, the group, the first channel.
        consumer: The consumer.
        size: Its size as a regression.
        work: About the multiply-adds of gathering it and eliminating its channels.
        columns: The columns of some channels of a group; None for all columns.
    """

    name: Name
    consumer: Contraction
    size: Size
    work: float
    columns: Tensor | None = None

    def gather(self) -> Moments | Rows:
        """Return what gathers its features."""
        return Moments(crosses=False) if self.size.rows is None else Rows()


@dataclass(frozen=True)
class GroupConsumers:
    """One group's consumers, in pieces that fit the memory.

    Attributes:
        group: The group.
        pieces: Each piece, with the channel that each of its columns belongs to (-1: of another
            group).
        weighed: Names of the group's weights that are no regression.
    """

    group: Group
    pieces: Sequence[tuple[Piece, Channels]]
    weighed: Sequence[str]

    @property
    def is_parted(self) -> bool:
        """Return whether a consumer had to be taken apart."""
        return any(piece.columns is not None for piece, _ in self.pieces)

    @property
    def ordering_bytes(self) -> int:
        """Return the bytes that ordering the channels takes beside what was gathered for it."""
        sizes = [piece.size for piece, _ in self.pieces]
        again = [piece.size for piece, channel in self.pieces if (channel < 0).any()]
        whole = bytes_to_eliminate(sizes, max((s.features for s in sizes), default=1), again)
        return whole - sum(size.gathered_bytes for size in sizes)


@dataclass(frozen=True)
class PieceRegression:
    """A piece's regression; losses are shares of the variance of the consumer's target.

    Attributes:
        features: Second moments of the features, [blocks, features, features], or rows.
        weight: The weight in units of what it may disturb, [blocks, features, outputs].
        ridge: Share of the diagonal's mean that is added to it, [blocks].
        by_rows: Whether `features` are rows, [blocks, rows, features].
    """

    features: Tensor
    weight: Tensor
    ridge: Tensor
    by_rows: bool

    def of(self, channel: Channels) -> Regression:
        """Return it as a regression of a group, with the channel of each feature."""
        return Regression(self.features, self.weight, channel, self.ridge, self.by_rows)


def feature_tensors(
    network: Network, consumer: Contraction, columns: Tensor | None = None
) -> Channels:
    """Return the number of the weight that each feature belongs to, or each of some columns."""
    widths = [network.tensors[n][consumer.layout.contracted].size for n in consumer.tensors]
    numbers = np.repeat(np.arange(len(widths)), widths)
    return numbers if columns is None else numbers[columns.numpy()]


def feature_channels(
    network: Network, consumer: Contraction, group: Group, features: int
) -> Channels:
    """Return the channel of the group that each feature belongs to, [features]; -1 for none."""
    channels = []
    for tensor in consumer.tensors:
        shape = network.tensors[tensor]
        kernel = math.prod(dim.size for dim in shape[2:])
        channel = coordinates(shape[consumer.layout.contracted], network.axes[group.name])
        channels.append(np.repeat(channel, kernel))
    return np.concatenate(channels)[:features]
