"""Let files appear whole in a folder that is there already."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compressor.errors import CompressorError, UsageError
from compressor.files.claimed import temporary_folder
from compressor.files.folder import EXPORTS, WEIGHTS_OF, parts_of
from compressor.report import to_json

SCHEMA = 2


def check_free(target: Path, names: Sequence[str], *, force: bool) -> None:
    """Check, before any work is done, that no file is in the way.

    Raises:
        UsageError: A file of these names exists and `force` is off, or the folder is a file.
    """
    there = [name for name in names if (target / name).exists()]
    if there and not force:
        raise UsageError(
            f"{there[0]} exists",
            where=str(target / there[0]),
            consequence="nothing was done; the file is untouched",
            next_step="replace it with --force, or give another folder with --out",
        )
    if target.exists() and not target.is_dir():
        raise UsageError(
            "the folder is a file",
            where=str(target),
            consequence="nothing was done",
            next_step="name another folder with --out",
        )


def publish(files: Mapping[str, Path], entries: Mapping[str, Any], target: Path) -> None:
    """Copy the files into the target folder, each of which appears whole.

    External weights come before the file that names them, and exports.json last.

    Args:
        files: By name.
        entries: What exports.json says of them; entries of earlier exports stay.
        target: The folder; it is made if it is not there.

    Raises:
        CompressorError: The files cannot be written.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
        with temporary_folder(target, ".") as hidden:
            for path in files.values():
                for part in parts_of(path):
                    shutil.copyfile(part, hidden / part.name)
            said = hidden / EXPORTS
            everything = {**_earlier(target / EXPORTS), **entries}
            said.write_text(to_json({"schema": SCHEMA, "files": everything}), encoding="utf-8")
            for part in sorted(hidden.iterdir(), key=_order):
                part.replace(target / part.name)
    except OSError as error:
        raise CompressorError(
            f"the files cannot be written: {error.strerror or error}",
            where=str(target),
            consequence="files that were there are whole",
            next_step="give another folder with --out",
        ) from error


def _order(part: Path) -> tuple[bool, bool]:
    """Sort weights first, then the files that name them, then exports.json."""
    return part.name == EXPORTS, part.suffix not in (".data", *WEIGHTS_OF.values())


def _earlier(path: Path) -> dict[str, Any]:
    """Return the entries of an earlier exports.json; none where it cannot be read."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return dict(told["files"]) if told["schema"] == SCHEMA else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
