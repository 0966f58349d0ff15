"""Collect what each operator says about its dimensions, as one table by overload."""

from __future__ import annotations

import functools
import inspect
import re
from collections import ChainMap
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, overload

from compressor.errors import CompressorError, UsageError
from compressor.graph.rules import (
    attention,
    convolution,
    create,
    elementwise,
    index,
    join,
    linear,
    mixture,
    norm,
    pooling,
    recurrent,
    reduce,
    sampling,
    shape,
    spectral,
)
from compressor.graph.rules.call import Call, Equations, Refusal, Rule

FAMILIES = MappingProxyType(
    {
        "element by element": elementwise,
        "linear layers and matrix products": linear,
        "convolutions": convolution,
        "pooling and resampling": pooling,
        "norms": norm,
        "sampling where data say": sampling,
        "reductions and scans": reduce,
        "Fourier transforms": spectral,
        "attention": attention,
        "recurrent layers": recurrent,
        "shapes": shape,
        "joining and cutting": join,
        "look-ups": index,
        "mixtures of experts": mixture,
        "new tensors": create,
    }
)
"""Name of a family of rules -> its module, with a table `RULES`."""


def _join() -> dict[str, Rule]:
    rules: dict[str, Rule] = {}
    for family in FAMILIES.values():
        for name, rule in family.RULES.items():
            register(name, rule, rules)
    return rules


def register(name: str, rule: Rule, rules: dict[str, Rule]) -> None:
    """Enter a rule into `rules`, in place, under an overload's name without its namespace.

    Raises:
        UsageError: The overload has a rule already.
    """
    if name in rules:
        raise UsageError(
            f"there are two rules for the operator {name}",
            where=f"{rules[name].__module__} and {rule.__module__}",
            next_step="keep one of them",
        )
    rules[name] = rule


BUILT_IN: Mapping[str, Rule] = MappingProxyType(_join())
"""Overload without its namespace ("conv2d.default") -> rule."""

_registered: dict[str, Rule] = {}

RULES: Mapping[str, Rule] = MappingProxyType(ChainMap(_registered, dict(BUILT_IN)))
"""All rules by overload: the built-in ones and, before them, those that users have registered
for operators of their own ("mylib.my_op.default"). The table is read-only, and always up to
date."""


@overload
def register_rule(operator: str, rule: Rule, *, replace: bool = False) -> Rule: ...
@overload
def register_rule(operator: str, *, replace: bool = False) -> Callable[[Rule], Rule]: ...
def register_rule(
    operator: str, rule: Rule | None = None, *, replace: bool = False
) -> Rule | Callable[[Rule], Rule]:
    """Say how an operator's dimensions depend on each other, so that its networks can be pruned.

    Every analysis from now on asks the rule. The same code run again (a file that is imported
    twice, a notebook's cell) is no second rule.

    Args:
        operator: Its name as torch.library has it, "mylib::my_op" or "mylib::my_op.overload"; the
            name in reports, "mylib.my_op.default", will do too.
        rule: From a `Call` to its `Equations`. Without it, a decorator is returned.
        replace: Let this rule take the place of another for the same operator.

    Raises:
        UsageError: The name is no operator's, the rule cannot be called, or the operator has
            another rule and `replace` is off.
    """
    name = _overload(operator)

    def enter(rule: Rule) -> Rule:
        if not callable(rule):
            raise UsageError(
                f"a rule is a function of a Call, not {type(rule).__name__}",
                where=f"register_rule({operator!r}, ...)",
                next_step="docs/adding-a-rule.md has an example",
            )
        if name in RULES and not replace and _origin(rule) != _origin(RULES[name]):
            raise UsageError(
                f"the operator {name} has a rule already",
                where=f"{RULES[name].__module__}.{getattr(RULES[name], '__qualname__', '')}",
                consequence="the new one is not used",
                next_step=f"register_rule({operator!r}, ..., replace=True) puts it in its place",
            )
        _registered[name] = _explain(name, rule)
        return rule

    return enter if rule is None else enter(rule)


_NAME = re.compile(r"(\w+)(?:::|\.)(\w+)(?:\.(\w+))?")


def _overload(operator: str) -> str:
    """Return the name under which the analysis looks for an operator's rule."""
    found = _NAME.fullmatch(operator)
    if found is None:
        raise UsageError(
            f"{operator!r} is no operator's name",
            where="register_rule",
            next_step="write namespace and operator as in torch.library: 'mylib::my_op'",
        )
    namespace, name, overload = found.groups(default="default")
    return f"{name}.{overload}" if namespace == "aten" else f"{namespace}.{name}.{overload}"


def _origin(rule: Rule) -> Any:
    """Return where a function's code is (file and line), else the rule itself."""
    code = getattr(inspect.unwrap(rule), "__code__", None)
    return (code.co_filename, code.co_firstlineno) if code else inspect.unwrap(rule)


def _explain(name: str, rule: Rule) -> Rule:
    """Wrap a rule so that its failures are raised as errors in the user's code."""

    @functools.wraps(rule)
    def explain(call: Call) -> Equations:
        try:
            return rule(call)
        except Exception as error:
            raise CompressorError(
                f"the registered rule for {name} failed: {type(error).__name__}: {error}",
                where=f"{rule.__module__}, for the arguments {', '.join(call.arguments)}",
                consequence="the network cannot be analysed",
                next_step="correct the rule; without one the operator protects what reaches it",
            ) from error

    return explain


__all__ = [
    "BUILT_IN",
    "FAMILIES",
    "RULES",
    "Call",
    "Equations",
    "Refusal",
    "Rule",
    "register",
    "register_rule",
]
