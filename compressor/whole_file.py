"""A file that appears complete or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compressor.errors import CompressorError


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """A temporary file beside the target that takes its name once the block succeeds.

    Raises:
        CompressorError: The file cannot be written; an earlier one of that name is untouched.
    """
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise _unwritable(target, error) from error
    try:
        os.close(handle)
        yield Path(temporary)
        Path(temporary).replace(target)
    except OSError as error:
        raise _unwritable(target, error) from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def _unwritable(target: Path, error: OSError) -> CompressorError:
    return CompressorError(
        f"{target} cannot be written: {error.strerror or error}",
        where=str(target),
        consequence="nothing was written",
        next_step="give a file in an existing folder that you may write to",
    )
