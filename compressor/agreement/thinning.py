"""Take evenly spaced rows of outputs that are too large to be compared in every place."""

from __future__ import annotations

import torch
from torch import Tensor

LARGE = 2**22
"""The number of a sample's entries up to which an output is compared in every place."""


def thin(output: Tensor) -> Tensor:
    """Return an output itself, or of a larger one evenly spaced rows, the first and last included.

    Rows are along the last dimension but one: positions of a text, whose scores of all tokens stay,
    or lines of a map, of which all channels stay; all samples do. Which rows they are does not
    depend on the number of samples. What is thin already stays as it is.
    """
    samples, entries = output.shape[:1].numel(), output.shape[1:].numel()
    if output.dim() < 3 or entries <= LARGE or not samples:
        return output
    count = output.shape[-2]
    kept = min(count, max(2, count * LARGE // entries))
    places = torch.linspace(0, count - 1, kept, dtype=torch.float64).round().long()
    return output.index_select(-2, places.to(output.device))
