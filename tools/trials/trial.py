"""One trial, and the file of what trials found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.jsonl import append_trial, key_of, read_trials

Record = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """A network made smaller once.

    Attributes:
        study: Which table it belongs to.
        network: A key of `networks.NETWORKS`.
        choice: A criterion of ours, or "tp " and the name of one of Torch-Pruning's.
        repair: A key of `ours.REPAIRS`.
        ratio: Share of the MACs that is removed.
        round_to: Kept widths are multiples of it.
        samples: Calibration samples, without their labels unless the criterion needs them.
        draw: Which samples these are: the seed.
        inner: Only channels inside residual blocks are removed, none of the streams.
        scope: Whether layers compete for what is kept ("global") or lose the same share ("layer").
        augment: Samples are looked at twice: as they are, and shifted and flipped at random.
    """

    study: str
    network: str
    choice: str
    repair: str = "none"
    ratio: float = 0.5
    round_to: int = 1
    samples: int = 1024
    draw: int = 0
    inner: bool = False
    scope: str = "global"
    augment: bool = False

    @property
    def key(self) -> str:
        return key_of(self)


def read(path: Path) -> dict[str, Record]:
    """Records by their trial's key; a line that an interruption cut off is dropped."""
    return read_trials(path, Trial)


def append(path: Path, trial: Trial, found: Record) -> None:
    append_trial(path, trial, found)


def missing(trials: Sequence[Trial], path: Path) -> list[Trial]:
    """The trials that the file does not have yet, those that share a score side by side."""
    known = read(path)
    left = [trial for trial in trials if trial.key not in known]
    return sorted(left, key=lambda t: (t.network, t.samples, t.draw, t.choice))
