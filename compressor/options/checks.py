"""What a value must be, and the refusals of what cannot be meant."""

from __future__ import annotations

import difflib
import math
from typing import Any, Literal, get_args, get_origin

from compressor.errors import UsageError
from compressor.hosts import read_host
from compressor.options.spelling import flag

MOST = 0.9
"""No layer loses a larger share of its channels."""


def at_least(options: Any, **least: int) -> None:
    for name, bound in least.items():
        if getattr(options, name) < bound:
            raise refusal(name, f"{getattr(options, name)} is below the least, {bound}")


def check_host(on: str | None, python: str | None) -> None:
    """Check how another machine is named; a Python is named for one that is."""
    if on is not None:
        read_host(on)
    elif python is not None:
        raise refusal("on_python", "it is of another machine; give --on too")


def refusal(name: str, what: str) -> UsageError:
    return UsageError(
        what,
        where=flag(name),
        consequence="nothing was loaded",
        next_step=f"compress --help says what {flag(name)} takes",
    )


_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9, "t": 10**12}


def count_of(option: str, text: str) -> int:
    """Parse a count such as 2G, 1.5M or 300000; raise UsageError for what is none from 1 on."""
    number = text.strip().lower().rstrip("kmgbt")
    suffix = text.strip().lower()[len(number) :]
    try:
        count = float(number) * _SUFFIXES[suffix]
    except (ValueError, KeyError):
        count = math.nan
    if not 1 <= count < math.inf:
        raise refusal(option, f"{text!r} is no number such as 2G, 350M or 4000000")
    return int(count)


def glob_and_share(text: str) -> tuple[str, float]:
    glob, _, share = text.rpartition("=")
    try:
        number = float(share)
    except ValueError:
        number = math.nan
    if not glob or not 0 <= number <= MOST:
        raise UsageError(
            f"{text!r} is not a glob and a share between 0 and {MOST:g}",
            where="--layer-ratio",
            consequence="nothing was loaded",
            next_step="for three tenths of the channels of each layer in blocks: "
            "--layer-ratio 'blocks.*=0.3'",
        )
    return glob, number


_KINDS: dict[Any, tuple[type, ...]] = {
    bool: (bool,),
    int: (int,),
    float: (int, float),
    str: (str,),
}


def check_kind(name: str, value: Any, hint: Any) -> None:
    """Raise UsageError for a value that is not of an option's kind."""
    if type(None) in get_args(hint):
        if value is not None:
            check_kind(name, value, next(kind for kind in get_args(hint) if kind is not type(None)))
    elif get_origin(hint) is tuple:
        for item in value:
            check_kind(name, item, get_args(hint)[0])
    elif get_origin(hint) is Literal:
        check_choice(name, value, get_args(hint))
    elif hint == int | Literal["auto"]:
        if value != "auto":
            check_kind(name, value, int)
    elif not isinstance(value, _KINDS[hint]) or (isinstance(value, bool) and hint is not bool):
        raise refusal(name, f"{value!r} is not of the kind that is wanted here, {hint}")


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1) or choices[:1]
        raise UsageError(
            f"{value!r} is not one of {', '.join(choices)}",
            where=flag(name),
            consequence="nothing was loaded",
            next_step=f"for example: {flag(name)} {near[0]}",
        )
