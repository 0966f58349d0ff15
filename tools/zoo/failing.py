"""Networks that fail: in time, and in words."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class WrongError(Exception):
    """The result is not what a pass asks for."""


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise WrongError in the main thread when the block takes longer."""

    def stop(*_: Any) -> None:
        raise WrongError(f"took longer than {seconds} s")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def describe(error: Exception) -> dict[str, str]:
    """Return kind, first line and place (as the error says it, else the deepest frame)."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = getattr(error, "where", "") or f"{Path(frame.filename).name}:{frame.lineno}"
    first = lines[0] if lines else ""
    return {"kind": type(error).__name__, "first_line": first[:300], "where": str(where)[:300]}
