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

CUT = 0.9
"""A layer with at most this share of its multiply-adds left shows what its time has in it that does
not depend on them."""

FOLLOWS = 0.15
"""A layer's time follows its multiply-adds if the share that is left of one is this close to the
share that is left of the other."""


@dataclass(frozen=True)
class Slow:
    """A layer whose time did not fall as its multiply-adds did; shares are of the baseline's.
    `width` is how many channels it makes."""

    layer: str
    width: int
    before_ms: float
    after_ms: float
    macs_left: float
    time_left: float
    why: str
    next_step: str


@dataclass(frozen=True)
class FixedCost:
    """An estimate of the time that narrower layers do not save.

    Attributes:
        ms: Of the `layers` that were cut, what did not follow their multiply-adds.
        total_ms: Of all operators of the smaller network.
        layers: How many layers the estimate is from.
    """

    ms: float
    total_ms: float
    layers: int

    @property
    def share(self) -> float:
        """Of the smaller network's time, 0 to 1."""
        return self.ms / self.total_ms if self.total_ms else 0.0


@dataclass(frozen=True)
class _Reason:
    applies: Callable[[Operator], bool]
    why: str
    next_step: str


_REASONS = (
    _Reason(
        lambda o: bool(o.width % STEP),
        "a number of channels off the kernels' step of 8",
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


def fixed_cost(before: Sequence[Operator], after: Sequence[Operator]) -> FixedCost:
    """What the layers that were cut would still take with hardly any multiply-adds.

    A layer's time is taken to be a fixed part and one in proportion to its multiply-adds: two
    points, before and after, give both.
    """
    known = {operator.name: operator for operator in before}
    pairs = [(known[operator.name], operator) for operator in after if operator.name in known]
    parts = [
        _fixed_ms(wide, narrow)
        for wide, narrow in pairs
        if wide.ms and narrow.ms and 0 < narrow.macs <= CUT * wide.macs
    ]
    return FixedCost(sum(parts), sum(operator.ms for operator in after), len(parts))


def _fixed_ms(wide: Operator, narrow: Operator) -> float:
    left = narrow.macs / wide.macs
    return min(max(0.0, (narrow.ms - left * wide.ms) / (1 - left)), narrow.ms)


def _is_slow(before: Operator, after: Operator) -> bool:
    if not before.macs or not before.ms or not after.ms or after.macs >= before.macs:
        return False
    return after.ms / before.ms > after.macs / before.macs + FOLLOWS


def _slow(before: Operator, after: Operator) -> Slow:
    reason = next(reason for reason in _REASONS if reason.applies(after))
    return Slow(
        after.layer,
        after.width,
        before.ms,
        after.ms,
        after.macs / before.macs,
        after.ms / before.ms,
        reason.why,
        reason.next_step,
    )
