"""One trial, and the file of what trials found."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.jsonl import append_trial, key_of, read_trials

Record = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """A network made smaller once and trained, or those of a study timed against each other.

    Attributes:
        study: A key of `studies.STUDIES`.
        network: A key of `data.NETWORKS`.
        method: A key of `methods.METHODS`; "" times the networks that the study's methods make.
        times: How many times fewer MACs.
        epochs: Of training.
        seed: Of calibration samples, of a random choice, and of the training.
    """

    study: str
    network: str
    method: str
    times: float
    epochs: int
    seed: int = 0

    @property
    def key(self) -> str:
        return key_of(self)

    @property
    def file(self) -> str:
        """A name for what is kept meanwhile."""
        return hashlib.sha256(self.key.encode()).hexdigest()[:16]


def read(path: Path) -> dict[str, Record]:
    """Records by their trial's key; a line that an interruption cut off is dropped."""
    return read_trials(path, Trial)


def append(path: Path, trial: Trial, found: Record) -> None:
    append_trial(path, trial, found)
