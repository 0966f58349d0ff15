"""Files of records, one line each, that grow while a run goes on and outlive its interruption."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file, if there is one; a line cut off by an interruption is dropped."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")


def key_of(trial: Any) -> str:
    """A text that is the same for equal trials, which are dataclasses."""
    return json.dumps(asdict(trial), sort_keys=True)


def read_trials(path: Path, kind: Callable[..., Any]) -> dict[str, dict[str, Any]]:
    """Records by their trial's key."""
    return {key_of(kind(**record["trial"])): record for record in read_lines(path)}


def append_trial(path: Path, trial: Any, found: Mapping[str, Any]) -> None:
    append_line(path, {"trial": asdict(trial), **found})
