"""Keep the writers silent on the terminal, and clear about files that cannot be written."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

from compressor.errors import CompressorError

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


def first_line(error: BaseException) -> str:
    """Return what the first error of a chain of causes says, cut to one line.

    It is the error's type where it says nothing.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)[:MOST]


class NoRoomError(CompressorError):
    """The place cannot be written to, whatever is to be written there."""


def write(path: Path, content: bytes) -> None:
    """Write the bytes to a file.

    Raises:
        NoRoomError: The file cannot be written.
    """
    try:
        path.write_bytes(content)
    except OSError as error:
        raise no_room(path, error) from error


def no_room(path: Path, error: Exception) -> NoRoomError:
    """Return the error of a file that cannot be written, from what writing it raised."""
    return NoRoomError(
        f"the file cannot be written: {getattr(error, 'strerror', None) or error}",
        where=str(path),
        next_step="check the folder's permissions and the free space",
    )
