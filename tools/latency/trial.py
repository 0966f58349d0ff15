"""One trial, and the file of what trials found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.jsonl import append_trial, key_of, read_trials

Record = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """A network made smaller once and timed against the original.

    Attributes:
        study: Which table it belongs to, a key of `studies.STUDIES`.
        network: A key of `networks.NETWORKS`.
        method: What makes it smaller, a key of the study's methods.
        ratio: Share of the MACs, or of the time, that is removed.
    """

    study: str
    network: str
    method: str = ""
    ratio: float = 0.5

    @property
    def key(self) -> str:
        return key_of(self)


def read(path: Path) -> dict[str, Record]:
    """Records by their trial's key; a line that an interruption cut off is dropped."""
    return read_trials(path, Trial)


def append(path: Path, trial: Trial, found: Record) -> None:
    append_trial(path, trial, found)
