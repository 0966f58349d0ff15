"""What is tried, known by its content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tools.jsonl import key_of

Record = dict[str, Any]

OURS, RIVAL, CLOCK = "ours", "Torch-Pruning", "clock"
THEIR_CHOICE = "Torch-Pruning's choice, our repair"
FLAP, GENERATION = "FLAP", "tokens per second"
"""The tools of a trial."""


@dataclass(frozen=True)
class Trial:
    """A network made smaller once, or several smaller forms of it timed together.

    Attributes:
        network: A key of `networks.NETWORKS`.
        tool: OURS, RIVAL, THEIR_CHOICE, FLAP, CLOCK or GENERATION.
        options: Of OURS those of `compressor.compress`; of RIVAL those of `torch_pruning.Goal`,
            `batch_norm` (whether its statistics are re-estimated) and `epochs`; of THEIR_CHOICE
            those of `Goal`; of FLAP those of OURS; of CLOCK the `forms` (label -> tool and options)
            and `batches`; of GENERATION such `forms`, of OURS alone.
    """

    network: str
    tool: str
    options: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Return a text that is the same for equal trials."""
        return key_of(self)

    @property
    def file(self) -> str:
        """Return a name for what the trial keeps on the disk meanwhile."""
        return hashlib.sha256(self.key.encode()).hexdigest()[:16]
