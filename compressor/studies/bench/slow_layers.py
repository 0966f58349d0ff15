"""Explain, layer by layer, why a network with fewer multiply-adds is not faster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from compressor.latency.operators import Operator

STEP = 8
"""Widths that are multiples of this suit the kernels of every common processor."""

SMALL_MS = 0.02
"""A layer that takes less than this, in milliseconds, spends its time on being called."""

MACS_PER_BYTE = 4.0
"""With fewer multiply-adds per byte than this, a layer waits for memory more than it computes."""

CUT = 0.9
"""The fixed part of a layer's time is estimated where no more of its multiply-adds is left."""

FOLLOWS = 0.15
"""How much more may be left of a layer's time than of its multiply-adds, in shares of one, before
it is called slow."""


@dataclass(frozen=True)
class Slow:
    """A layer whose time did not fall as its multiply-adds did, with a likely reason.

    Attributes:
        layer: Its name.
        width: How many channels it makes.
        before_ms: Its time in the baseline, in milliseconds.
        after_ms: Its time in the smaller network, in milliseconds.
        macs_left: Share of the baseline's multiply-adds that is left, 0 to 1.
        time_left: Share of the baseline's time that is left.
        why: The likely reason, in words.
        next_step: What to try.
    """

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
        ms: The part of the cut layers' time that did not follow their multiply-adds, in
            milliseconds.
        total_ms: The time of all operators of the smaller network, in milliseconds.
        layers: How many layers the estimate is from.
    """

    ms: float
    total_ms: float
    layers: int

    @property
    def share(self) -> float:
        """Return the fixed part as a share of the smaller network's time, 0 to 1."""
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
    """Return the layers with fewer multiply-adds whose time did not follow, most time lost first.

    Args:
        before: The baseline's operators, with their times.
        after: The smaller network's operators; they are matched by name.
    """
    known = {operator.name: operator for operator in before}
    slow = [
        _slow(known[operator.name], operator)
        for operator in after
        if operator.name in known and _is_slow(known[operator.name], operator)
    ]
    return sorted(slow, key=lambda s: s.macs_left * s.before_ms - s.after_ms)


def fixed_cost(before: Sequence[Operator], after: Sequence[Operator]) -> FixedCost:
    """Estimate the time that the cut layers would still take with hardly any multiply-adds.

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
