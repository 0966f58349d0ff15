"""Read and change the nodes of an exported program: arguments by name, and what they do."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Graph, Node

ASSERTION = torch.ops.aten._assert_tensor_metadata.default
"""The operator that holds a tensor to the traced type and device; it is left out where programs
run on other devices."""

DETACH = torch.ops.aten.detach_.default
"""The operator that takes a tensor out of the graph of gradients, in place: its numbers stay."""


def operator_of(node: Node) -> str:
    """Return the name of a node's operator as the tables of facts have it.

    That is the overload, without the namespace where it is ATen's: "conv2d.default",
    "torchvision.nms.default".
    """
    return str(node.target).removeprefix("aten.")


def base_name(node: Node) -> str:
    """Return an operator's name without namespace, overload and in-place mark.

    "add_.Tensor" is "add".
    """
    parts = operator_of(node).split(".")
    name = parts[1] if len(parts) > 2 else parts[0]
    return name if name.startswith("_") else name.rstrip("_")


def given_arguments(node: Node) -> dict[str, Any]:
    """Return a node's arguments by their names in the schema, without defaults."""
    return dict(zip(schema_names(node), node.args, strict=False)) | dict(node.kwargs)


def schema_names(node: Node) -> list[str]:
    """Return the names of the arguments of a node's operator."""
    assert isinstance(node.target, torch._ops.OpOverload)
    return [a.name for a in node.target._schema.arguments]


def argument(node: Node, name: str) -> Any:
    """Return a node's argument by its name in the schema, or the schema's default if not given."""
    position = schema_names(node).index(name)
    if position < len(node.args):
        return node.args[position]
    assert isinstance(node.target, torch._ops.OpOverload)
    return node.kwargs.get(name, node.target._schema.arguments[position].default_value)


def set_argument(node: Node, name: str, value: Any) -> None:
    """Set a node's argument by its name in the schema, as it is given now or else by keyword."""
    position = schema_names(node).index(name)
    if position < len(node.args):
        node.update_arg(position, value)
    else:
        node.update_kwarg(name, value)


def operand(node: Node, argument: str) -> Node | None:
    """Return the node behind a tensor argument, or None; "tensors.1" is the second of a list."""
    name, _, position = argument.partition(".")
    value: Any = given_arguments(node).get(name)
    value = value[int(position)] if position else value
    return value if isinstance(value, Node) else None


def live_nodes(graph: Graph) -> set[Node]:
    """Return the nodes that the output depends on.

    In-place operators count, since they act even where nobody uses their results.
    """
    live: set[Node] = set()
    for node in reversed(graph.nodes):
        if node.op == "output" or node in live or is_mutable(node):
            live |= {node, *node.all_input_nodes}
    return live


def is_mutable(node: Node) -> bool:
    """Return whether an operator writes to memory that it is given."""
    schema = getattr(node.target, "_schema", None)
    return bool(schema is not None and schema.is_mutable and node.target is not DETACH)


def shape_of(node: Node) -> tuple[str, ...]:
    """Return the sizes of the tensor that a node yields, as text; () where it yields none."""
    value = node.meta.get("val")
    return tuple(map(str, value.shape)) if isinstance(value, torch.Tensor) else ()


def is_view(node: Node) -> bool:
    """Return whether an operator's result is its operand's memory, seen otherwise."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or is_mutable(node):
        return False
    return any(result.alias_info for result in schema.returns)


def is_written_to(node: Node) -> bool:
    """Return whether an operator changes a node's value in place, or that of a view of it."""
    for user in node.users:
        if is_mutable(user) and user.args[0] is node:
            return True
        if is_view(user) and is_written_to(user):
            return True
    return False


def read_through(node: Node) -> Node:
    """Return the node whose very tensor a node gives: conversions to the type it has are skipped.

    The exporter writes that what follows such a conversion reads it, wherever that stands.
    """
    while _converts_nothing(node):
        (node,) = node.all_input_nodes
    return node


def _converts_nothing(node: Node) -> bool:
    if not operator_of(node).startswith("to.") or len(node.all_input_nodes) != 1:
        return False
    before, after = node.all_input_nodes[0].meta.get("val"), node.meta.get("val")
    if not isinstance(before, torch.Tensor) or not isinstance(after, torch.Tensor):
        return False
    given = given_arguments(node)
    is_same = (before.dtype, before.device) == (after.dtype, after.device)
    return is_same and not given.get("copy") and given.get("memory_format") is None


def paths_of(node: Node) -> list[str]:
    """Return the paths of the modules that an operator was traced from, the outermost first."""
    return [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
