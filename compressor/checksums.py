"""SHA256SUMS beside files, in the form of the command `sha256sum`: whether a file is still what was
written. Formats of weights and networks have no such check of their own."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from compressor.errors import CompressorError

NAME = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def write_checksums(folder: Path) -> None:
    """Of all files of a folder."""
    lines = [f"{_sha256(path)}  {path.name}\n" for path in sorted(folder.iterdir())]
    (folder / NAME).write_text("".join(lines), encoding="utf-8")


def check_unchanged(path: Path) -> None:
    """Compare a file with what the SHA256SUMS beside it say of it, if they say anything.

    Raises:
        CompressorError: It is another.
    """
    expected = _known(path.parent / NAME).get(path.name)
    if expected is not None and path.is_file() and _sha256(path) != expected:
        raise CompressorError(
            f"{path.name} is not what was written: it, or {NAME}, is damaged or was changed",
            where=str(path),
            consequence="it was not used",
            next_step=f"copy the folder again; if the change is yours, take its line out of {NAME}",
        )


def _known(sums: Path) -> dict[str, str]:
    try:
        text = sums.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    found = (_LINE.fullmatch(line) for line in text.splitlines())
    return {match[2]: match[1] for match in found if match}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
