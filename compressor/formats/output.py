"""Be clear about files that cannot be written."""

from __future__ import annotations

from pathlib import Path

from compressor.errors import CompressorError


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
