"""Say what a program reads of its nodes' results, and which operands are the same everywhere."""

from __future__ import annotations

import operator
from collections.abc import Iterator

import torch
from torch.fx import Node

from compressor.graph.programs.nodes import (
    argument,
    given_arguments,
    is_written_to,
    operator_of,
)
from compressor.graph.rules.facts import CONVERTS, FILLS

_SIZES = ("sym_size.int", "sym_numel.default")


def indices_read(node: Node) -> dict[int, frozenset[int]]:
    """Return which indices of the first dimension are read of a node's results.

    Returns:
        Position of a result -> the indices; results that are read as a whole are left out.
    """
    values = node.meta.get("val")
    if not isinstance(values, list | tuple):
        return {}
    found: dict[int, frozenset[int]] = {}
    for position, value in enumerate(values):
        parts = [u for u in node.users if u.target is operator.getitem and u.args[1] == position]
        if len(node.users) and all(user.target is operator.getitem for user in node.users):
            read = _indices(parts, value)
            found |= {} if read is None else {position: read}
    return found


def _indices(parts: list[Node], value: object) -> frozenset[int] | None:
    if not isinstance(value, torch.Tensor) or not value.dim():
        return None
    size = value.shape[0]
    if not isinstance(size, int):
        return None
    read: set[int] = set()
    for user in (user for part in parts for user in part.users):
        name = operator_of(user)
        if name in _SIZES:
            continue
        if name not in ("select.int", "slice.Tensor") or argument(user, "dim") % value.dim():
            return None
        if name == "select.int":
            read.add(argument(user, "index") % size)
            continue
        bounds = [argument(user, bound) for bound in ("start", "end", "step")]
        if not all(bound is None or isinstance(bound, int) for bound in bounds):
            return None
        read |= set(range(size)[slice(*bounds)])
    return frozenset(read)


def blank_operands(node: Node) -> frozenset[str]:
    """Return the names of a node's operands that hold one number everywhere ("hx.1" in a list)."""
    return frozenset(name for name, source in operands_of(node) if _is_blank(source))


def operands_of(node: Node) -> Iterator[tuple[str, Node]]:
    """Yield the tensors that an operator is given, by the arguments' names ("hx.1" in a list)."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return
    for name, value in given_arguments(node).items():
        if isinstance(value, Node):
            yield name, value
        elif isinstance(value, list | tuple):
            listed = enumerate(value)
            yield from ((f"{name}.{i}", each) for i, each in listed if isinstance(each, Node))


def _is_blank(node: Node) -> bool:
    name = operator_of(node)
    if name in CONVERTS:
        source = node.args[0]
        return isinstance(source, Node) and _is_blank(source) and not is_written_to(node)
    return name in FILLS and not is_written_to(node)
