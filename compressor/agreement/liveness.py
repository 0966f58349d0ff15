"""Find out whether a comparison shows anything.

A network that answers to nothing agrees with every other one.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from compressor.agreement.differences import Cases, as_real, is_between_0_and_1

LIVE = 1e-3
"""A relative change of an output that float32 resolves well enough to show errors of some 0.1 %."""

FAINT = 0.1
"""Elements below this share of the smallest tenth's size are left out: they may be rounding."""


def answer(cases: Cases, resolved: float = 0.0) -> float:
    """Return how much the outputs change between inputs: the largest relative change of an element.

    The change is relative to the element, so neither small outputs nor large constants beside them
    hide it. Elements that are nothing beside most others are left out.

    Args:
        cases: Outputs for different inputs; where batch sizes differ, the common part is compared.
        resolved: Smaller changes of outputs between 0 and 1 do not count (`Tolerance.resolved`).
    """
    pairs = [
        (as_real(a), as_real(b))
        for one, other in pairwise(cases)
        for a, b in zip(one, other, strict=False)
    ]
    shared = [_cut_to_shared(a, b) for a, b in pairs if a.dim() == b.dim()]
    return max((_change(a, b, resolved) for a, b in shared), default=0.0)


def is_live(cases: Cases, bound: float = LIVE, resolved: float = 0.0) -> bool:
    """Return whether some output changes between inputs by more than `bound`."""
    return answer(cases, resolved) > bound


def _change(a: Tensor, b: Tensor, resolved: float) -> float:
    if not a.is_floating_point():
        return float(not torch.equal(a, b))
    finite = a.isfinite() & b.isfinite()
    sizes = torch.maximum(a.abs(), b.abs())[finite]
    distinct: Tensor = torch.unique(sizes[sizes > 0])
    if not distinct.numel():
        return 0.0
    counts = sizes >= FAINT * distinct[len(distinct) // 10]
    changes = (a - b).abs()[finite][counts]
    if is_between_0_and_1((a, b)):
        changes = torch.where(changes > resolved, changes, 0.0)
    return float((changes / sizes[counts]).max())


def _cut_to_shared(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    part = tuple(slice(min(sizes)) for sizes in zip(a.shape, b.shape, strict=True))
    return a[part], b[part]
