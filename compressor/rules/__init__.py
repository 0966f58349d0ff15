"""What each operator says about its dimensions, as one table by ATen overload."""

from collections.abc import Mapping
from types import MappingProxyType

from compressor.errors import UsageError
from compressor.rules import (
    attention,
    convolution,
    create,
    elementwise,
    index,
    join,
    linear,
    norm,
    pooling,
    recurrent,
    reduce,
    shape,
)
from compressor.rules.call import Call, Equations, Rule

_FAMILIES = (
    attention,
    convolution,
    create,
    elementwise,
    index,
    join,
    linear,
    norm,
    pooling,
    recurrent,
    reduce,
    shape,
)


def _joined() -> dict[str, Rule]:
    rules: dict[str, Rule] = {}
    for family in _FAMILIES:
        for name, rule in family.RULES.items():
            register(name, rule, rules)
    return rules


def register(name: str, rule: Rule, rules: dict[str, Rule]) -> None:
    """Enter a rule under an overload's name without its namespace; a second one is refused."""
    if name in rules:
        raise UsageError(
            f"there are two rules for the operator {name}",
            where=f"{rules[name].__module__} and {rule.__module__}",
            next_step="keep one of them",
        )
    rules[name] = rule


RULES: Mapping[str, Rule] = MappingProxyType(_joined())
"""Overload without its namespace ("conv2d.default") -> rule."""

__all__ = ["RULES", "Call", "Equations", "Rule", "register"]
