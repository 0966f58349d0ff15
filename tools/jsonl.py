"""Files of records, one line each, that grow while a run goes on and outlive its interruption."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield a file's records, if there is one; a line cut off by an interruption is dropped."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Add a record to a file, so that it is on the disk whatever comes next.

    A line that an interruption cut off is ended first, or the record would be lost with it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        is_cut_off = file.tell() > 0 and not path.read_bytes().endswith(b"\n")
        file.write("\n" * is_cut_off + json.dumps(record, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def key_of(trial: Any) -> str:
    """Return a text that is the same for equal trials, which are dataclasses."""
    return json.dumps(asdict(trial), sort_keys=True)


def read_trials(path: Path, kind: Callable[..., Any]) -> dict[str, dict[str, Any]]:
    """Return a file's records by their trial's key."""
    return {key_of(kind(**record["trial"])): record for record in read_lines(path)}


def append_trial(path: Path, trial: Any, found: Mapping[str, Any]) -> None:
    """Add to a file what a trial found."""
    append_line(path, {"trial": asdict(trial), **found})
