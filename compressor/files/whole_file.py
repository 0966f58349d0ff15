"""Write a file that appears complete or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compressor.errors import CompressorError
from compressor.files.claimed import new_file


@contextmanager
def write_whole(target: Path) -> Iterator[Path]:
    """Yield a temporary file beside the target that takes its name once the block succeeds.

    Raises:
        CompressorError: The file cannot be written; an earlier one of that name is untouched.
    """
    try:
        temporary, remove = new_file(target.parent, f".{target.name}.")
    except OSError as error:
        raise _unwritable(target, error) from error
    try:
        yield temporary
        temporary.replace(target)
    except OSError as error:
        raise _unwritable(target, error) from error
    finally:
        remove()


def _unwritable(target: Path, error: OSError) -> CompressorError:
    return CompressorError(
        f"{target} cannot be written: {error.strerror or error}",
        where=str(target),
        consequence="nothing was written",
        next_step="give a file in an existing folder that you may write to",
    )
