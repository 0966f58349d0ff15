"""Check that what lies in a result's folder is what was written there."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from compressor.errors import CompressorError
from compressor.files.folder import EXPORTS, PLAN, REPORT, WEIGHTS, files_under
from compressor.files.format_table import FORMATS, names_of_files
from compressor.files.hashes import sha256_of


def hashed_names() -> list[str]:
    """Return the names of the files whose hashes the report holds."""
    originals = [row.original for row in FORMATS.values() if row.original]
    return [*names_of_files(), WEIGHTS, *originals, PLAN]


def hashes_of(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file that the report answers for, by name."""
    there = (name for known in hashed_names() for name in files_under(folder, known))
    return {name: sha256_of(folder / name) for name in there}


def check_files(folder: Path, names: Iterable[str]) -> None:
    """Check that files are those that the folder's report.json tells of.

    A folder whose report is missing or says nothing of files cannot be checked, and passes.

    Raises:
        CompressorError: Names the file, and whether it is gone, cut off or changed.
    """
    known = _read_hashes(folder)
    for name in names:
        if name in known:
            _check(folder / name, known[name])


def _read_hashes(folder: Path) -> dict[str, str]:
    """Return the hashes in the report, updated by those of files that were exported later."""
    known = _read_files(folder / REPORT)
    for entry in _read_files(folder / EXPORTS).values():
        hashes = entry.get("sha256") if isinstance(entry, dict) else None
        known |= hashes if isinstance(hashes, dict) else {}
    return known


def _read_files(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))["files"]
        return {str(name): value for name, value in told.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _check(path: Path, digest: str) -> None:
    if not path.is_file():
        problem = f"{path.name} is missing from the result"
    elif sha256_of(path) != digest:
        problem = (
            f"{path.name} is not the file that compress wrote: it was changed, or is cut off "
            f"(SHA-256 differs from report.json's)"
        )
    else:
        return
    raise CompressorError(
        problem,
        where=str(path),
        consequence="nothing was done with it, since the report's numbers are not this file's",
        next_step="compress again, or copy the folder again from where it was whole",
    )
