"""Why a network with fewer multiply-adds is not faster: layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from compressor.measure import Operator

STEP = 8
"""Widths that are multiples of it suit the kernels of every common processor."""

SMALL_MS = 0.02
"""A layer this quick spends its time on being called."""

MACS_PER_BYTE = 4.0
"""Below this a layer waits for memory more than it computes."""

FOLLOWS = 0.15
"""A layer's time follows its multiply-adds if the share that is left of one is this close to the
share that is left of the other."""


@dataclass(frozen=True)
class Slow:
    """A layer whose time did not fall as its multiply-adds did; shares are of the baseline's."""

    layer: str
    before_ms: float
    after_ms: float
    macs_left: float
    time_left: float
    why: str
    next_step: str


@dataclass(frozen=True)
class _Reason:
    applies: Callable[[Operator], bool]
    why: str
    next_step: str


_REASONS = (
    _Reason(
        lambda o: bool(o.width % STEP),
        "{width} channels: off the kernels' step of 8",
        "--round-to auto, the default, keeps widths that kernels run well",
    ),
    _Reason(
        lambda o: o.ms < SMALL_MS,
        "so quick that calling it takes the time",
        "a larger --batch, or --of latency, which cuts elsewhere",
    ),
    _Reason(
        lambda o: o.macs < MACS_PER_BYTE * o.traffic,
        "bound by memory: few multiply-adds per byte",
        "--of latency, which knows what each layer's channels save",
    ),
    _Reason(
        lambda o: True,
        "the kernel runs less well at this width",
        "--of latency, which goes by measured times",
    ),
)


def slow_layers(before: Sequence[Operator], after: Sequence[Operator]) -> list[Slow]:
    """Those with fewer multiply-adds whose time did not follow, most time lost first."""
    known = {operator.name: operator for operator in before}
    found = [
        _slow(known[operator.name], operator)
        for operator in after
        if operator.name in known and _is_slow(known[operator.name], operator)
    ]
    return sorted(found, key=lambda s: s.macs_left * s.before_ms - s.after_ms)


def _is_slow(before: Operator, after: Operator) -> bool:
    if not before.macs or not before.ms or not after.ms or after.macs >= before.macs:
        return False
    return after.ms / before.ms > after.macs / before.macs + FOLLOWS


def _slow(before: Operator, after: Operator) -> Slow:
    reason = next(reason for reason in _REASONS if reason.applies(after))
    return Slow(
        after.layer,
        before.ms,
        after.ms,
        after.macs / before.macs,
        after.ms / before.ms,
        reason.why.format(width=after.width),
        reason.next_step,
    )
