"""Records of single rows: one line each, written at once, never lost to a later interruption."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.jsonl import read_lines

Record = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A figure to be: which one, and what finds it. `key` holds plain values only."""

    part: str
    key: Mapping[str, Any]
    find: Callable[[], Mapping[str, Any]]

    @property
    def name(self) -> str:
        return name_of({"part": self.part, "key": self.key})


def name_of(record: Mapping[str, Any]) -> str:
    """A text that is the same for records of the same row."""
    return json.dumps([record["part"], record["key"]], sort_keys=True)


def known(files: Iterable[Path]) -> dict[str, Record]:
    """Records by row, the later ones in place of the earlier; failures give way to figures."""
    found: dict[str, Record] = {}
    for file in files:
        for record in read_lines(file):
            name = name_of(record)
            if name not in found or "failure" in found[name] or "failure" not in record:
                found[name] = record
    return found
