"""Say how far apart two right forms of one network may be, by the precision they compute in."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Tolerance:
    """The differences that are accepted between two forms of a network.

    Attributes:
        relative: Largest difference of an element, relative to what varies where it stands.
        rounding: Largest difference relative to the element itself: a channel that is a million
            plus something small cannot be known better than a million is.
        smallest: Absolute difference that is accepted everywhere: what the type cannot tell from 0.
        of_one: Absolute difference that is accepted in outputs between 0 and 1: a runtime other
            than PyTorch computes sigmoid and softmax to the last places of 1, not of the result.
    """

    relative: float
    rounding: float
    smallest: float
    of_one: float = 0.0

    @property
    def resolved(self) -> float:
        """The smallest change of an output between 0 and 1 that still shows a mistake.

        The mistake is one of one per cent, or of `relative` where that is more.
        """
        return self.of_one / max(self.relative, 0.01)

    @property
    def own_share(self) -> float:
        """The share of an element's own size that counts as its scale.

        A difference of `rounding` is one of `relative` on that scale.
        """
        return self.rounding / self.relative


def _of(dtype: torch.dtype, relative: float, units: int) -> Tolerance:
    """Make the tolerance of a type: `units` in the last place are accepted as rounding."""
    info = torch.finfo(dtype)
    return Tolerance(relative, units * info.eps, units * info.tiny * info.eps)


FLOAT32 = _of(torch.float32, 1e-4, 32)
FLOAT16 = _of(torch.float16, 0.05, 16)
BFLOAT16 = _of(torch.bfloat16, 0.2, 8)
INT8 = replace(FLOAT32, relative=1.0, rounding=0.25, of_one=2 / 255)
ONNX = replace(FLOAT32, of_one=4 * torch.finfo(torch.float32).eps)
"""For a network in float32 that ONNX Runtime computes."""

_BY_TYPE = {torch.float16: FLOAT16, torch.bfloat16: BFLOAT16, torch.int8: INT8}


def tolerance_of(dtype: torch.dtype) -> Tolerance:
    """Return the tolerance for networks that compute in this type.

    Double precision is held to what float32 is: networks compute norms and tables in float32 by
    name. `torch.int8` stands for networks that are quantised to 8 bits.
    """
    return _BY_TYPE.get(dtype, FLOAT32)
