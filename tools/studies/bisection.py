"""The one bisection: a thing of the wanted size, from a number that makes it smaller."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Made = TypeVar("Made")

TRIES = 14


def bisect(
    make: Callable[[float], Made],
    size: Callable[[Made], float],
    wanted: float,
    *,
    close: float,
    tries: int = TRIES,
) -> Made:
    """Return what is nearest to the wanted size among what was made.

    Args:
        make: Makes it from a number between 0 and 1; a larger number makes a smaller thing.
        size: Of what was made.
        wanted: The size that is looked for.
        close: The difference at which the search ends.
        tries: How often something is made, at most.
    """
    low, high = 0.0, 1.0
    best: tuple[float, Made] | None = None
    for _ in range(tries):
        middle = (low + high) / 2
        made = make(middle)
        above = size(made) - wanted
        if best is None or abs(above) < best[0]:
            best = abs(above), made
        if abs(above) < close:
            break
        low, high = (middle, high) if above > 0 else (low, middle)
    assert best is not None
    return best[1]
