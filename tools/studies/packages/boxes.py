"""Boxes around texts: read off a map of scores, and matched with the true ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

Boxes = np.ndarray[Any, Any]
"""Left, top, right and bottom in pixels [boxes, 4]; right and bottom lie outside."""

THRESHOLD, LEAST_SCORE, UNCLIP = 0.3, 0.6, 1.6
"""What counts as text, the mean score of a box, and how far a box grows."""
LEAST_SIDE = 3
"""Pixels of a box that is kept."""
LEAST_OVERLAP = 0.5
"""Intersection over union from which on a box is found."""


def find_boxes(scores: np.ndarray[Any, Any]) -> Boxes:
    """Return the boxes of a map of scores [height, width], as differentiable binarisation has them.

    Connected places above the threshold make a box. It was shrunk for training, and grows by its
    area over its perimeter, times UNCLIP (Liao et al., "Real-time scene text detection with
    differentiable binarization", AAAI 2020).
    """
    parts, _ = ndimage.label(scores > THRESHOLD, structure=np.ones((3, 3)))
    found = []
    for rows, columns in ndimage.find_objects(parts):
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if min(height, width) < LEAST_SIDE or scores[rows, columns].mean() < LEAST_SCORE:
            continue
        by = UNCLIP * height * width / (2 * (height + width))
        grown = columns.start - by, rows.start - by, columns.stop + by, rows.stop + by
        found.append(np.clip(grown, 0, [*scores.shape[::-1]] * 2))
    return np.array(found).reshape(-1, 4)


def overlaps(first: Boxes, second: Boxes) -> np.ndarray[Any, Any]:
    """Return the intersection over union of each box with each other [first, second]."""
    a, b = first[:, None], second[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    both = sides.clip(0).prod(-1)
    areas = [(x[..., 2:] - x[..., :2]).prod(-1) for x in (a, b)]
    return np.asarray(both / (areas[0] + areas[1] - both))


@dataclass(frozen=True)
class Matches:
    """How many boxes were right, of those found and of those that there are."""

    right: int = 0
    found: int = 0
    there: int = 0

    def __add__(self, other: Matches) -> Matches:
        return Matches(self.right + other.right, self.found + other.found, self.there + other.there)

    @property
    def precision(self) -> float:
        """Return the share of right ones among those found."""
        return self.right / max(self.found, 1)

    @property
    def recall(self) -> float:
        """Return the share of those there that were found."""
        return self.right / max(self.there, 1)

    @property
    def f1(self) -> float:
        """Return the harmonic mean of both."""
        return 2 * self.right / max(self.found + self.there, 1)


def match(found: Boxes, there: Boxes) -> Matches:
    """Pair found boxes with true ones, as many as overlap enough, each at most once."""
    is_near = overlaps(found, there) >= LEAST_OVERLAP
    right = int(is_near[linear_sum_assignment(is_near, maximize=True)].sum())
    return Matches(right, len(found), len(there))
