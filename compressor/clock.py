"""Time calls: the one loop that repeats them, the one turn, and the clocks of the processor.

Nothing here needs torch or ONNX Runtime, so that a process that times one of them holds no more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")
Call = Callable[[], object]
"""Runs a network once on inputs that stay the same."""
Clock = Callable[[Call], float]
"""Runs a call once, and returns the milliseconds that it took."""

WARM_UP_SECONDS, WARM_UP_CALLS = 0.5, 5


def repeat(seconds: float, least: int, most: float = math.inf) -> Iterator[int]:
    """Yield 0, 1, 2, … until the seconds are over: `least` numbers at least, `most` at most."""
    end, done = time.perf_counter() + seconds, 0
    while done < least or (done < most and time.perf_counter() < end):
        yield done
        done += 1


def warm_up(call: Call, seconds: float = WARM_UP_SECONDS) -> None:
    """Call a network for so many seconds, and several times at least, before it is timed."""
    for _ in repeat(seconds, WARM_UP_CALLS):
        call()


def take_turn(call: Call, seconds: float, clock: Callable[[Call], T]) -> list[T]:
    """Call a network for some seconds, and return what the clock says of each call.

    One more call comes first and is not timed: it finds another network's data in the caches.

    Args:
        call: Runs the network once.
        seconds: How long; one call is timed at least.
        clock: Runs the call once, and returns how long it took.
    """
    call()
    return [clock(call) for _ in repeat(seconds, 1)]


def by_wall(call: Call) -> float:
    """Run a call once, and return the milliseconds that passed meanwhile."""
    begin = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - begin)


def by_wall_and_processor(call: Call) -> tuple[float, float]:
    """Run a call once, and return the milliseconds that passed and those of this thread alone."""
    wall, processor = time.perf_counter(), time.thread_time()
    call()
    spent = time.perf_counter() - wall, time.thread_time() - processor
    return spent[0] * 1000, spent[1] * 1000
