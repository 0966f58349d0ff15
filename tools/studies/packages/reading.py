"""Texts that a recogniser reads, and how far they are from the true ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def decode(scores: np.ndarray[Any, Any], symbols: Sequence[str]) -> str:
    """Return the text of scores [places, 1 + symbols]: the best of each place, repeats once.

    Class 0 stands for nothing (connectionist temporal classification, Graves et al., 2006).
    """
    best = scores.argmax(1)
    is_new = np.append(True, best[1:] != best[:-1])
    return "".join(symbols[each - 1] for each in best[is_new & (best > 0)])


def edit_distance(first: str, second: str) -> int:
    """Return how many symbols must be put in, left out or changed (Levenshtein, 1966)."""
    row = list(range(len(second) + 1))
    for i, symbol in enumerate(first, 1):
        last, row[0] = row[0], i
        for j, other in enumerate(second, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (symbol != other))
    return row[-1]


def characters_right(read: Sequence[str], true: Sequence[str]) -> float:
    """Return 1 less the edits as a share of all true symbols."""
    edits = sum(map(edit_distance, read, true))
    return 1 - edits / sum(map(len, true))
