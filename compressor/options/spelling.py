"""How options are spelled on the command line: their groups, and how their values are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, get_type_hints

from cyclopts import Group, Parameter, Token

BUDGET = Group("How much is removed", sort_key=1)
CHOICE = Group("Which channels are removed", sort_key=2)
LATENCY = Group("How latency is measured", sort_key=2)
MODEL = Group("The model", sort_key=3)
DATA = Group("Data", sort_key=4)
RECOVERY = Group("Recovering accuracy", sort_key=5)
RUN = Group("The run", sort_key=6)
GRID = Group("The grid", sort_key=0)


def numbers(_: Any, tokens: Sequence[Token]) -> tuple[float, ...]:
    return tuple(float(number) for token in tokens for number in token.value.split(",") if number)


def whole_numbers(_: Any, tokens: Sequence[Token]) -> tuple[int, ...]:
    return tuple(int(number) for token in tokens for number in token.value.split(",") if number)


def texts(_: Any, tokens: Sequence[Token]) -> tuple[str, ...]:
    return tuple(text for token in tokens for text in token.value.split(",") if text)


def option(group: Group, metavar: str | None = None) -> Parameter:
    return Parameter(group=group, metavar=metavar, negative=())


def switch(group: Group) -> Parameter:
    return Parameter(group=group, negative=(), show_default=False)


def several(group: Group, metavar: str) -> Parameter:
    return Parameter(
        group=group, metavar=metavar, negative=(), consume_multiple=True, show_default=False
    )


def repeated(group: Group, metavar: str) -> Parameter:
    return Parameter(group=group, metavar=metavar, negative=(), show_default=False)


def listed_numbers(
    group: Group, metavar: str, converter: Callable[..., tuple[Any, ...]] = numbers
) -> Parameter:
    return Parameter(
        group=group,
        metavar=metavar,
        negative=(),
        consume_multiple=True,
        converter=converter,
        show_default=False,
    )


def listed_texts(group: Group, metavar: str) -> Parameter:
    return Parameter(
        group=group, metavar=metavar, negative=(), consume_multiple=True, converter=texts
    )


def named_in(options: type, *groups: Group) -> list[str]:
    """Return the names of the options that stand under the given headings of the help."""
    hints = get_type_hints(options, include_extras=True)
    return [name for name, hint in hints.items() if {*hint.__metadata__[0].group} & {*groups}]


def flag(name: str) -> str:
    """Return an option as the command line spells it: 'round_to' -> '--round-to'."""
    return "--" + name.replace("_", "-")
