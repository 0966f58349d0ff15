"""How the writers behave: silent on the terminal, clear about files that cannot be written."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

from compressor.errors import CompressorError


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """No prints, warnings or log lines of a library on the user's terminal."""
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


def write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise CompressorError(
            f"The file cannot be written: {error.strerror or error}",
            where=str(path),
            next_step="Check the folder's permissions and the free space.",
        ) from error
