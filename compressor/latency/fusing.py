"""Find the nodes that the runtime computes on their own.

Not those on weights alone, which it folds, and not those that it does within the operator before
them.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Node

from compressor.graph.programs.nodes import base_name, live_nodes

_CLAMPS = {"relu", "relu6", "hardtanh", "clamp", "clamp_min"}
_ACTIVATIONS = frozenset(_CLAMPS | {"sigmoid", "hardsigmoid", "tanh", "leaky_relu"})
_WITHIN: dict[str, tuple[frozenset[str], ...]] = {
    **dict.fromkeys(
        (f"{kind}{rank}d" for kind in ("conv", "conv_transpose") for rank in (1, 2, 3)),
        (frozenset({"batch_norm"}), frozenset({"add"}), _ACTIVATIONS),
    ),
    "batch_norm": (_ACTIVATIONS,),
    "linear": (frozenset({"relu"}),),
    "addmm": (frozenset({"relu"}),),
}
"""Operator -> what the runtime does within it where it follows, in this order, each once."""


def computed_nodes(program: ExportedProgram) -> Iterator[tuple[Node, tuple[Node, ...]]]:
    """Yield the operators that depend on the inputs and that an output depends on.

    Each comes with the nodes after it that the runtime does within it; these do not come again.
    """
    live, varying = live_nodes(program.graph), _varying(program)
    within: set[Node] = set()
    for node in program.graph.nodes:
        if node.op != "call_function" or node not in live or node not in varying:
            continue
        if node not in within and isinstance(node.target, torch._ops.OpOverload):
            then = tuple(_done_within(node))
            within |= set(then)
            yield node, then


def _varying(program: ExportedProgram) -> set[Node]:
    """Return the nodes whose values depend on the inputs; the runtime folds all others."""
    inputs = {
        spec.arg.name
        for spec in program.graph_signature.input_specs
        if spec.kind == InputKind.USER_INPUT
    }
    varying: set[Node] = set()
    for node in program.graph.nodes:
        if node.name in inputs or any(source in varying for source in node.all_input_nodes):
            varying.add(node)
    return varying


def _done_within(node: Node) -> Iterator[Node]:
    """Yield the nodes after this one that the runtime does within this one's operator."""
    last = node
    for names in _WITHIN.get(base_name(node), ()):
        user = next(iter(last.users)) if len(last.users) == 1 else None
        if user is not None and base_name(user) in names and _same_shape(last, user):
            yield user
            last = user


def _same_shape(node: Node, user: Node) -> bool:
    """Return whether both results have one shape; an addition that stretches one is not fused."""
    shapes = [getattr(n.meta.get("val"), "shape", None) for n in (node, user)]
    return shapes[0] == shapes[1]
