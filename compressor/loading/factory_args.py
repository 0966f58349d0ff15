"""Read the arguments of a factory, as `--factory-arg` spells them."""

import ast
from collections.abc import Sequence
from typing import Any

from compressor.errors import UsageError

MEANT_AS_LITERALS = frozenset(("true", "false", "none", "null"))
LITERAL_MARKS = frozenset("()[]{}'\"")
"""A text with one of these is meant as a literal: a list, a dict, quoted text."""


def parse_factory_args(pairs: Sequence[str]) -> dict[str, Any]:
    """Parse `["num_classes=10", "variant=small"]` into keyword arguments.

    Values are Python literals; what is none is taken as plain text.

    Raises:
        UsageError: A pair is not `name=value`, or its value is a literal with a mistake.
    """
    arguments: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (equals and name.strip().isidentifier()):
            raise _unclear(pair, "is not name=value")
        arguments[name.strip()] = _value(pair, text.strip())
    return arguments


def _value(pair: str, text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        if not text or LITERAL_MARKS.intersection(text):
            raise _unclear(pair, "has no value that can be read") from error
        if text.lower() in MEANT_AS_LITERALS:
            raise _unclear(pair, f"is either text or a literal: write {text.title()}") from error
    return text


def _unclear(pair: str, why: str) -> UsageError:
    return UsageError(
        f"--factory-arg {pair} {why}",
        where="--factory-arg",
        next_step="write text, numbers, True/False/None, tuples or quoted text: --factory-arg "
        "variant=small, --factory-arg num_classes=10, --factory-arg 'sizes=(1, 2)'",
    )
