"""Follow the channels that projections make through a program, to whatever reads them.

A channel is known by a number. In place of a projection's output, a tensor of such numbers goes
through the operators that only put values elsewhere; so no layout of heads has to be known.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from compressor.graph.programs.nodes import argument, operator_of
from compressor.graph.rules.facts import KEEPS_PLACES, MOVES
from compressor.least_squares.walk import Script, Walk, arguments_at

ATTENTION = "scaled_dot_product_attention.default"
PRODUCTS: Mapping[str, tuple[str, str]] = {
    "matmul.default": ("self", "other"),
    "bmm.default": ("self", "mat2"),
}
"""Products of two activations -> their operands, [..., t, e] and [..., e, s]."""


@dataclass(frozen=True)
class Producer:
    """A projection, the channels of which are followed.

    Attributes:
        node: Name of its node.
        input: Name of its argument that is projected.
        tensor, bias: Names of its weight and bias; "" where it has no bias.
        dim: The weight's dimension of channels.
        first: Number of its first channel; the others follow.
        width: How many channels it has.
    """

    node: str
    input: str
    tensor: str
    bias: str
    dim: int
    first: int
    width: int


@dataclass(frozen=True)
class Read:
    """What a node does with channels.

    Attributes:
        node: The node.
        kind: "product": sums over products of two channels each; "mean": mixes each channel's own
            values; "sum": contracts them with a weight; "other": anything else.
        left: The channels that are read: of a product [heads, e], where heads include the samples;
            of a mean [heads, f]; of a sum [features].
        right: Of a product, the channels that `left` is multiplied by, [heads, e].
    """

    node: Node
    kind: Literal["product", "mean", "sum", "other"]
    left: Tensor
    right: Tensor | None = None


def track(
    script: Script, producers: Mapping[str, Producer], inputs: Mapping[str, str], given: Any
) -> Iterator[tuple[Walk, Read]]:
    """Yield what reads channels, in the order of execution, each with a walk just before it.

    Args:
        script: The program.
        producers: The projections, by the name of their node.
        inputs: Linear layers by the name of their node -> the argument that they project.
        given: The inputs of the call.
    """
    walk, known = script.start(given), dict[Node, Any]()
    for place, node in enumerate(script.nodes):
        touched = [source for source in node.all_input_nodes if source in known]
        if touched or node.name in producers:
            walk.advance(node.name)
        if touched and _gives_tensors(node):
            moved = _move(node, walk, known)
            if moved is None:
                for read in _reads(node, known, inputs):
                    yield walk, read
                moved = _mix(node, walk, known)
            if moved is not None:
                known[node] = moved
        if node.name in producers:
            known[node] = _number(producers[node.name], arguments_at(walk, node))
        for done in script.done.get(place, ()):
            known.pop(done, None)


def _gives_tensors(node: Node) -> bool:
    value = node.meta.get("val")
    return node.op == "output" or isinstance(value, torch.Tensor | list | tuple)


def _number(producer: Producer, arguments: Mapping[str, Any]) -> Tensor:
    x: Tensor = arguments[producer.input]
    numbers = torch.arange(producer.width, device=x.device, dtype=torch.int32) + producer.first
    return numbers.expand(*x.shape[:-1], producer.width)


def _move(node: Node, walk: Walk, known: Mapping[Node, Any]) -> Any:
    """Return the channels of a node that only puts them elsewhere, or None."""
    first, *others = node.all_input_nodes
    if node.target is operator.getitem:
        return known[first][node.args[1]]
    name = operator_of(node)
    if first not in known or any(other in known for other in others):
        return None
    if name in KEEPS_PLACES:
        return None if others else known[first]
    if name not in MOVES:
        return None
    args, kwargs = map_arg(
        (node.args, node.kwargs), lambda n: known[n] if n in known else walk.values[n]
    )
    # numbers may lie in memory otherwise than values do, where a view is none
    is_view = name in ("view.default", "_unsafe_view.default")
    target: Any = torch.ops.aten.reshape.default if is_view else node.target
    return target(*args, **kwargs)


# -- what attention does with its operands ---------------------------------------------------------


def operands(node: Node, values: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Return the factors of a product of activations, [heads, t, e] and [heads, s, e].

    Args:
        node: Attention, or a product of `PRODUCTS`.
        values: Its operands by name; those of channels' numbers are laid out as values are.
    """
    if operator_of(node) == ATTENTION:
        left, right = values["query"], _repeat(values["key"], values["query"], node)
    else:
        names = PRODUCTS[operator_of(node)]
        left, right = values[names[0]], values[names[1]].transpose(-2, -1)
    lead = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    left, right = (x.expand(*lead, *x.shape[-2:]) for x in (left, right))
    return left.reshape(-1, *left.shape[-2:]), right.reshape(-1, *right.shape[-2:])


def _repeat(x: Tensor, query: Tensor, node: Node) -> Tensor:
    """Return keys or values as often as queries share them."""
    if x.dim() < 3 or not argument(node, "enable_gqa"):
        return x
    return x.repeat_interleave(query.shape[-3] // x.shape[-3], dim=-3)


def _numbers(node: Node, known: Mapping[Node, Any], names: tuple[str, ...]) -> dict[str, Tensor]:
    by_name = {name: known.get(argument(node, name)) for name in names}
    return {name: value for name, value in by_name.items() if value is not None}


def _reads(node: Node, known: Mapping[Node, Any], inputs: Mapping[str, str]) -> Iterator[Read]:
    name = operator_of(node)
    rest = {source for source in node.all_input_nodes if source in known}
    factors = ("query", "key") if name == ATTENTION else PRODUCTS.get(name, ())
    if factors and len(numbers := _numbers(node, known, factors)) == 2:
        sides = [_alike(side) for side in operands(node, numbers)]
        if sides[0] is not None and sides[1] is not None:
            yield Read(node, "product", sides[0], sides[1])
            rest -= {argument(node, factor) for factor in factors}
    elif node.name in inputs and rest == {argument(node, inputs[node.name])}:
        (source,) = rest
        columns = known[source].reshape(-1, known[source].shape[-1])
        if bool((columns == columns[:1]).all()):
            yield Read(node, "sum", columns[0])
            rest = set()
    mixed = _mixed(node, known)
    if mixed is not None and mixed[0] in rest:
        heads = _alike(mixed[1].reshape(-1, *mixed[1].shape[-2:]))
        assert heads is not None
        yield Read(node, "mean", heads)
        rest -= {mixed[0]}
    for source in rest:
        for part in known[source] if isinstance(known[source], list | tuple) else [known[source]]:
            yield Read(node, "other", part.unique())


def _alike(numbers: Tensor) -> Tensor | None:
    """Return the channels of each head, [heads, e], where every position has the same, or None."""
    first = numbers[:, :1]
    return first.squeeze(1) if bool((numbers == first).all()) else None


def _mixed(node: Node, known: Mapping[Node, Any]) -> tuple[Node, Tensor] | None:
    """Return the operand whose values a node averages over positions, with its channels."""
    name = operator_of(node)
    if name == ATTENTION:
        source = argument(node, "value")
    elif name in PRODUCTS and argument(node, PRODUCTS[name][0]) not in known:
        source = argument(node, PRODUCTS[name][1])
    else:
        return None
    numbers = known.get(source)
    if numbers is None or numbers.dim() < 3 or not bool((numbers == numbers[..., :1, :]).all()):
        return None
    return source, numbers


def _mix(node: Node, walk: Walk, known: Mapping[Node, Any]) -> Tensor | None:
    """Return the channels of a node that averages its operand's values over positions."""
    mixed = _mixed(node, known)
    if mixed is None:
        return None
    _, numbers = mixed
    arguments = arguments_at(walk, node)
    name = operator_of(node)
    weights = arguments["query" if name == ATTENTION else PRODUCTS[name][0]]
    if name == ATTENTION:
        numbers = _repeat(numbers, weights, node)
    lead = np.broadcast_shapes(weights.shape[:-2], numbers.shape[:-2])
    return numbers[..., :1, :].expand(*lead, weights.shape[-2], numbers.shape[-1])


def feeds_softmax(node: Node) -> bool:
    """Return whether what is the same for all keys is lost on the way from a product of queries.

    That is where a softmax over the keys follows, behind sums and numbers as factors alone.
    """
    if operator_of(node) == ATTENTION:
        return True
    while len(node.users) == 1:
        (node,) = node.users
        name = operator_of(node)
        if name.startswith(("softmax.", "_softmax.")):
            rank = len(node.meta["val"].shape)
            return int(argument(node, "dim")) % rank == rank - 1
        scaled = name in KEEPS_PLACES and len(node.all_input_nodes) == 1
        if not scaled and not name.startswith(("add.", "add_.", "masked_fill.")):
            return False
    return False
