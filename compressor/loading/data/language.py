"""Say what is known of a network that reads text: its tokenizer, its lengths, its task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from compressor.options import DataOptions
from compressor.recover.tasks import USUAL, Task

USUAL_LENGTH = 512
"""How many tokens a sample has at most, unless the user says it."""

_POSITIONS = ("max_position_embeddings", "n_positions", "max_sequence_length")
"""What configurations of transformers call the number of positions that a network was made for."""


@dataclass(frozen=True)
class Language:
    """What is known of a network that reads text, and of how the user wants text to be cut.

    Attributes:
        tokenizer: The folder of its tokenizer; None where none is known.
        length: The most tokens of a sample, if the user says it.
        positions: How many positions the network was made for; None where nothing says it.
        vocabulary: How many tokens it tells apart; None where nothing says it.
        classes: Names of classes, and their numbers.
        start: The token that a decoder begins with; None for a network without a decoder of its
            own.
        task: What its outputs are for.
        seed: Seed of what is hidden from masked language models.
    """

    tokenizer: Path | None = None
    length: int | None = None
    positions: int | None = None
    vocabulary: int | None = None
    classes: Mapping[str, int] = field(default_factory=dict)
    start: int | None = None
    task: Task = USUAL
    seed: int = 0

    @classmethod
    def of(cls, module: nn.Module | None, task: Task, options: DataOptions) -> Language:
        """Read from a network, if there is one, and from what the user says, how text is read."""
        config = getattr(module, "config", None)
        own = getattr(module, "name_or_path", "")
        folder = options.tokenizer or (own if isinstance(own, str) else "")
        known = (getattr(config, name, None) for name in _POSITIONS)
        start = getattr(config, "decoder_start_token_id", None)
        is_pair = bool(getattr(config, "is_encoder_decoder", False))
        return cls(
            tokenizer=Path(folder).expanduser() if folder else None,
            length=options.length,
            positions=next((n for n in known if isinstance(n, int)), None),
            vocabulary=_vocabulary(module),
            classes={str(k): int(v) for k, v in (getattr(config, "label2id", None) or {}).items()},
            start=(start or 0) if is_pair else None,
            task=task,
            seed=options.seed,
        )


def _vocabulary(module: nn.Module | None) -> int | None:
    """Return how many rows the embedding of a transformers model has."""
    get: Any = getattr(module, "get_input_embeddings", None)
    try:
        return int(get().num_embeddings)
    except (TypeError, AttributeError, NotImplementedError):
        return None
