"""Put a node of a program to the rules: its operator's name, its arguments as rules see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch._ops import OpOverload
from torch.fx import Node

from compressor.graph.programs.nodes import operator_of
from compressor.graph.rules.call import Call
from compressor.graph.what_is_read import blank_operands, indices_read


def call_of(
    node: Node,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    as_seen: Callable[[Any], Any],
    outputs: tuple[tuple[int, ...], ...] = (),
) -> Call:
    """Build the call that a rule is asked about; what is not given has the schema's default.

    Arguments of a function that has no schema are named by their number.

    Args:
        node: A node that calls an operator.
        args, kwargs: The values of its arguments, of any kind.
        as_seen: Turns such a value into what a rule sees: a `TensorShape`, a number, a tuple.
        outputs: The sizes of the results.
    """
    target = node.target
    if isinstance(target, OpOverload):
        schema = target._schema.arguments
        given: dict[str, Any] = {a.name: a.default_value for a in schema}
        given |= dict(zip(given, args, strict=False)) | dict(kwargs)
    else:
        given = {str(i): value for i, value in enumerate((*args, *kwargs.values()))}
    seen = {name: as_seen(value) for name, value in given.items()}
    return Call(operator_of(node), seen, outputs, indices_read(node), blank_operands(node))
