"""Find pairs of weights between which the widths of heads may be turned.

Queries meet keys, and values meet the output projection, in sums over a head's channels. Such a sum
stays what it is where one side's channels are multiplied by any matrix and the other's by its
inverse, as long as nothing else reads them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from compressor.graph.axes import Axis, Bools, coordinates, keep_mask, leaves
from compressor.graph.network import Network
from compressor.graph.programs.nodes import argument, operator_of
from compressor.graph.rules.facts import WEIGHING
from compressor.least_squares.consumers import Contraction, consumers
from compressor.least_squares.tracking import Producer, Read
from compressor.least_squares.walk import Script

FORMS = ("linear", "product")
"""Forms of operators whose outputs' last dimension is the channels."""

WIDTHS = "head_width"
"""The role of groups whose channels are the widths of heads."""


@dataclass(frozen=True)
class Side:
    """The channels of some heads in one weight.

    Attributes:
        tensor, bias: Names of the weight and of its bias; "" where there is none.
        dim: The weight's dimension of these channels.
        places: Their positions, [heads, copies, e]: grouped queries share a head of keys.
    """

    tensor: str
    bias: str
    dim: int
    places: Tensor


@dataclass(frozen=True)
class Pair:
    """Two weights that meet in a sum over the channels of heads.

    Attributes:
        node: Name of the node where they meet: a product of activations, or a linear layer.
        left: Queries, or values.
        right: Keys, or the linear layer's own columns.
        kept: Which channels of a head stay, [e].
        heads: Number of any channel of the right side (values: of the left) -> its head.
    """

    node: str
    left: Side
    right: Side
    kept: Tensor
    heads: Mapping[int, int]


class Channels:
    """The projections of a program that make widths of heads, of which some channels are dropped.

    Attributes:
        producers: By the name of their node.
        inputs: Linear layers by the name of their node -> the argument that they project.
    """

    def __init__(
        self,
        program: ExportedProgram,
        network: Network,
        masks: Mapping[Axis, Bools],
        device: str,
    ) -> None:
        self.buffers = set(program.graph_signature.buffers) | set(program.constants)
        self.network, self.masks, self.script = network, masks, Script(program, device)
        widths = {network.axes[group.name] for group in network.groups if group.role == WIDTHS}
        self.cut = {axis for axis in widths & set(masks) if not masks[axis].all()}
        all_linear = [c for c in consumers(program, network.aliases) if self._is_linear(c)]
        self.linear = {c.node: c for c in all_linear if not c.shared}
        self.inputs = {name: c.layout.input for name, c in self.linear.items()}
        self.producers: dict[str, Producer] = {}
        first = 0
        for contraction in self.linear.values():
            made = self._producer(contraction, first)
            if made is not None:
                self.producers[made.node] = made
                first += made.width

    def _is_linear(self, consumer: Contraction) -> bool:
        node = self.script.named[consumer.node]
        rank = self.script.tensors[consumer.tensor].dim()
        weighing = WEIGHING.get(operator_of(node))
        return weighing is not None and weighing.form in FORMS and rank == 2

    def _producer(self, consumer: Contraction, first: int) -> Producer | None:
        """Return a linear layer as a producer, if it makes channels that are dropped."""
        layout, dim = consumer.layout, 1 - consumer.layout.contracted
        made = self.network.tensors[consumer.tensor][dim]
        if not self.cut.intersection(leaves(made)):
            return None
        biased = layout.bias and argument(self.script.named[consumer.node], layout.bias) is not None
        if biased and not (consumer.constant and consumer.sign == 1):
            return None
        bias = consumer.constant if biased else ""
        return Producer(consumer.node, layout.input, consumer.tensor, bias, dim, first, made.size)

    def place(self, numbers: Tensor) -> tuple[Producer, Tensor] | None:
        """Return the one producer of some channels and their positions in its weight."""
        least, most = int(numbers.min()), int(numbers.max())
        for producer in self.producers.values():
            if producer.first <= least and most < producer.first + producer.width:
                return producer, numbers.long() - producer.first
        return None

    def kept(self, tensor: str, dim: int) -> Tensor:
        """Return which positions of a tensor's dimension stay, [size] bool."""
        return torch.as_tensor(keep_mask(self.network.tensors[tensor][dim], self.masks))

    def left_by(self, pairs: Iterable[Pair]) -> list[str]:
        """Return the weights that make channels of which some are dropped and no pair has all."""
        paired = {
            (side.tensor, place)
            for each in pairs
            for side in (each.left, each.right)
            for place in side.places.flatten().tolist()
        }
        left = dict[str, None]()
        for group in self.network.groups:
            axis = self.network.axes[group.name]
            for member in group.members if axis in self.cut else ():
                shape = self.network.tensors[member.tensor]
                if member.contracted or len(shape) < 2 or member.tensor in self.buffers:
                    continue
                places = np.flatnonzero(coordinates(shape[member.dim], axis) >= 0)
                if not all((member.tensor, place) in paired for place in places.tolist()):
                    left[member.tensor] = None
        return list(left)


def pair(channels: Channels, reads: Sequence[Read]) -> list[Pair]:
    """Return the pairs of which nothing else reads a channel, and whose heads lose some.

    Args:
        channels: The projections.
        reads: All that reads them in one batch.
    """
    how_often = Counter(
        number
        for read in reads
        if read.kind != "mean"
        for side in (read.left, read.right)
        if side is not None
        for number in set(side.flatten().tolist())
    )
    alone = {number for number, count in how_often.items() if count == 1}
    means = {str(h.tolist()): h for r in reads if r.kind == "mean" for h in [_distinct(r.left)]}
    pairs: list[Pair | None] = []
    for read in reads:
        if read.kind == "product":
            assert read.right is not None
            pairs.append(_product(channels, read, read.right, alone))
        elif read.kind == "sum":
            pairs += [_sum(channels, read, heads, alone) for heads in means.values()]
    return [each for each in pairs if each is not None]


def _product(channels: Channels, read: Read, keys: Tensor, alone: set[int]) -> Pair | None:
    """Return the pair of queries and keys."""
    met = _distinct(torch.cat([read.left, keys], 1))
    width = keys.shape[1]
    by_key: dict[tuple[int, ...], list[list[int]]] = defaultdict(list)
    for row in met.tolist():
        by_key[tuple(row[width:])].append(row[:width])
    if len({len(queries) for queries in by_key.values()}) != 1:
        return None
    left = torch.tensor(list(by_key.values()))
    right = torch.tensor(list(by_key)).unsqueeze(1)
    if not _are_apart((left, right), alone):
        return None
    sides = _side(channels, left), _side(channels, right)
    heads = {number: g for g, (head,) in enumerate(right.tolist()) for number in head}
    return _join(channels, read.node.name, sides, heads)


def _sum(channels: Channels, read: Read, heads: Tensor, alone: set[int]) -> Pair | None:
    """Return the pair of values and the linear layer that reads their means."""
    columns: dict[int, list[int]] = defaultdict(list)
    for column, number in enumerate(read.left.tolist()):
        columns[number].append(column)
    left = heads.unsqueeze(1)
    numbers = heads.flatten().tolist()
    if not _are_apart((left,), alone) or len({len(columns[n]) for n in numbers}) != 1:
        return None
    consumer = channels.linear[read.node.name]
    places = torch.tensor([[columns[n] for n in head] for head in heads.tolist()])
    if not places.numel():
        return None
    right = Side(consumer.tensor, "", consumer.layout.contracted, places.transpose(1, 2))
    known = {number: g for g, head in enumerate(heads.tolist()) for number in head}
    return _join(channels, read.node.name, (_side(channels, left), right), known)


def _distinct(rows: Tensor) -> Tensor:
    """Return the different rows of a matrix, sorted."""
    return torch.as_tensor(np.unique(rows.cpu().numpy(), axis=0))


def _are_apart(sides: Iterable[Tensor], alone: set[int]) -> bool:
    """Return whether every channel is read once alone, and stands once among the heads."""
    numbers = [number for side in sides for number in side.flatten().tolist()]
    return len(set(numbers)) == len(numbers) and set(numbers) <= alone


def _side(channels: Channels, numbers: Tensor) -> Side | None:
    placed = channels.place(numbers)
    if placed is None:
        return None
    producer, places = placed
    return Side(producer.tensor, producer.bias, producer.dim, places)


def _join(
    channels: Channels,
    node: str,
    sides: tuple[Side | None, Side | None],
    heads: Mapping[int, int],
) -> Pair | None:
    """Return the pair of the heads' sides, if all heads that stay keep the same channels."""
    left, right = sides
    if left is None or right is None:
        return None
    kept = [channels.kept(side.tensor, side.dim)[side.places] for side in (left, right)]
    patterns = _distinct(torch.cat([k.flatten(0, 1) for k in kept]))
    staying = patterns[patterns.any(1)]
    if len(staying) != 1 or staying.all():
        return None
    return Pair(node, left, right, staying[0], heads)
