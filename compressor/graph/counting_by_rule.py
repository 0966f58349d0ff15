"""Count multiply-adds of operators outside ATen by the rules that describe their dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch

from compressor.graph.rules import RULES, Call
from compressor.graph.rules.call import TensorShape, fresh

Values = Sequence[Any]


def by_rule() -> dict[str, Callable[[Values, Values], int]]:
    """Return a formula for each traced operator outside ATen that has a rule.

    These are torchvision's operators, and those that users have registered rules for.
    """
    names = (name.split(".") for name in RULES)
    return {"::".join(parts[:2]): _macs for parts in names if len(parts) == 3}


def _macs(inputs: Values, outputs: Values) -> int:
    """Count a call's multiply-adds by its rule, from traced values (`torch._C.Value`)."""
    schema = torch._C.parse_schema(outputs[0].node().schema())
    name = f"{schema.name.replace('::', '.')}.{schema.overload_name or 'default'}"
    if name not in RULES:
        return 0
    named = zip((a.name for a in schema.arguments), map(_argument, inputs), strict=False)
    sizes = tuple(tuple(value.type().sizes() or ()) for value in outputs)
    return macs_said(Call(name, dict(named), sizes))


def macs_said(call: Call) -> int:
    """The multiply-adds of a call of an operator that has a rule."""
    equations = RULES[call.op](call)
    return sum(prod(dim.size for dim in product) for product in equations.macs)


def _argument(value: Any) -> Any:
    """Return a traced value as a rule sees it: a tensor by its dimensions, others as they are."""
    if value.node().kind() == "prim::ListConstruct":
        return tuple(map(_argument, value.node().inputs()))
    sizes = value.type().sizes() if value.isCompleteTensor() else None
    return value.toIValue() if sizes is None else TensorShape(fresh(sizes))
