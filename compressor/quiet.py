"""Keep other libraries silent on the terminal, and their messages short."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

MOST = 300
"""The most characters that are shown of another library's message."""


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep a library's prints, warnings and log lines off the user's terminal in the block."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def root_message(error: BaseException) -> str:
    """Return what the first error of a chain of causes says, cut to one line.

    It is the error's type where it says nothing.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)[:MOST]
