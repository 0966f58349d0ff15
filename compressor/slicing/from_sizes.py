"""Compute, within a part of a program, values from outside that depend on sizes alone.

The exporter spells an attention mask that lets everything through as comparisons of positions,
where the model's own code hands on None. So a layer's call is not given what its operators take.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from compressor.graph.programs.nodes import is_mutable, is_written_to


class CannotStandInError(Exception):
    """The error raised where a module's part of the program cannot be told apart from the rest."""


def derive(
    node: Node, sources: Iterable[Node], constants: Mapping[Node, Tensor]
) -> GraphModule | None:
    """Return operators that compute a value from the sizes of others; None where more enters it.

    Args:
        node: The node whose value is wanted.
        sources: Nodes whose values are given, in this order; their sizes alone are read.
        constants: Nodes that hold tensors which live in the code alone.
    """
    sources = list(sources)
    chain = _chain_of(node, constants)
    if chain is None:
        return None
    graph, holder = Graph(), nn.Module()
    given = {n: graph.placeholder(f"given_{i}") for i, n in enumerate(sources)}
    copies: dict[Node, Any] = {}
    try:
        for i, each in enumerate(chain):
            if each in constants:
                holder.register_buffer(f"constant_{i}", constants[each].clone(), persistent=False)
                copies[each] = graph.get_attr(f"constant_{i}")
            elif not isinstance(each.meta["val"], Tensor):
                copies[each] = recompute(graph, each, sources, given)
            else:
                copies[each] = graph.node_copy(each, copies.__getitem__)
                copies[each].meta = {}
    except CannotStandInError:
        return None
    graph.output(copies[node])
    return GraphModule(holder, graph)


def _chain_of(node: Node, constants: Mapping[Node, Tensor]) -> list[Node] | None:
    """Return what a node is computed from, itself last, in the order of execution.

    Sizes and constants begin it. None where data, chance or writing to memory enter.
    """
    chain: dict[Node, None] = {}
    waiting = [node]
    while waiting:
        each = waiting.pop()
        if each in chain:
            continue
        chain[each] = None
        if isinstance(each.meta.get("val"), torch.SymInt):
            continue
        is_known = each.op == "call_function" or each in constants
        if not is_known or not _is_repeatable(each):
            return None
        waiting += each.all_input_nodes
    return [each for each in node.graph.nodes if each in chain]


def _is_repeatable(node: Node) -> bool:
    """Return whether an operator gives the same once more: no chance, no writing to its value."""
    is_random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
    return not (is_random or is_mutable(node) or is_written_to(node))


def recompute(graph: Graph, size: Node, inputs: Iterable[Node], copies: Mapping[Node, Any]) -> Node:
    """Add a size from outside to the graph, in place, computed from an input's dimension.

    The dimension is a multiple or a part of the size.

    Raises:
        CannotStandInError: No input has such a dimension.
    """
    wanted = size.meta.get("val")
    if not isinstance(wanted, torch.SymInt):
        raise CannotStandInError("takes a value that is no tensor")
    for node in inputs:
        for at, dim in enumerate(node.meta["val"].shape):
            share = wanted.node.expr / dim.node.expr if isinstance(dim, torch.SymInt) else None
            if share is not None and share.is_number:
                dimension = graph.call_function(torch.ops.aten.sym_size.int, (copies[node], at))
                grown = graph.call_function(operator.mul, (dimension, int(share.p)))
                return graph.call_function(operator.floordiv, (grown, int(share.q)))
    raise CannotStandInError("takes a size that none of its inputs has")
