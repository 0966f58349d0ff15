"""Choose the channels that each group keeps, from scores and a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from compressor.choose.candidates import fixed_counts, narrower, prunable, rounded, units
from compressor.choose.ranking import Clock, Ints, Moves, Unit, by_rank, by_time
from compressor.choose.refusals import nothing_to_prune, out_of_reach, overshot, removes_nothing
from compressor.choose.scopes import SCOPES, Scores
from compressor.graph.axes import Axis
from compressor.graph.network import Network
from compressor.records import Group

Keep = dict[str, tuple[int, ...]]

FAR = 0.02
"""The share of the whole network that a step of widths may remove beyond the budget."""


@dataclass(frozen=True)
class Last:
    """The move that met the budget: what it cost is the budget's shadow price.

    Attributes:
        group: Name of the group that became narrower.
        lost: Sum of the scores of its channels.
        saved: Share of the network's total that it saved.
    """

    group: str
    lost: float
    saved: float

    @property
    def price(self) -> float:
        """Return the score lost per one per cent of the network's total."""
        return self.lost / (100 * self.saved) if self.saved > 0 else float("inf")


@dataclass(frozen=True)
class Choice:
    """The kept indices of each group that loses some, and what is left of the budget's unit.

    Attributes:
        keep: Group name -> kept indices, ascending.
        unit, before, after: The budget's unit, and how much of it there was and is.
        fixed: Groups that `layer_ratios` decide about.
        widths: For each group that competed the widths that it could have got down to, widest
            first.
        last: The last move, or None where the budget took none.
    """

    keep: Keep
    unit: str
    before: float
    after: float
    fixed: frozenset[str] = frozenset()
    widths: Mapping[str, Sequence[int]] = field(default_factory=dict)
    last: Last | None = None

    @property
    def removed(self) -> float:
        """Return the share of the whole network's total that is removed, 0 to 1."""
        return 1 - self.after / self.before


def select(
    network: Network,
    scores: Scores,
    *,
    ratio: float | None,
    most: float | None = None,
    of: str = "macs",
    scope: str = "global",
    layer_ratios: Sequence[tuple[str, float]] = (),
    losses: Scores | None = None,
    protect: Sequence[str] = (),
    prune: Sequence[str] = (),
    round_to: int | Mapping[str, int] = 1,
    clock: Clock | None = None,
    best_effort: bool = False,
    keep_linked: bool = False,
    floors: Mapping[str, int] | None = None,
    short: float = 0.0,
    off_step: bool = False,
) -> Choice:
    """Drop the lowest-ranked channels until `ratio` of the network's total is gone.

    Args:
        network: The analysed network.
        scores: Per group one number per channel, comparable across groups.
        ratio: Share to remove of the whole network's `of`, protected parts included; it is met to
            within one channel (one rounding step, with `round_to`). None: only what `layer_ratios`
            say.
        most: What the ratio leaves, in units of `of`, where that is known exactly.
        of: "macs" of one sample, "params" or "channels"; with a clock it is only a name.
        scope: A key of `SCOPES`.
        layer_ratios: Pairs of a glob and the share of its channels that each group loses whose
            producing layer matches; the last one that matches counts. The others meet the ratio.
        losses: Per group the loss when 1, 2, ... of its channels are dropped, never falling;
            infinite where they must not be. The ratio is then met at the smallest loss that no
            group exceeds, and the scores only say which channels of a group go.
        protect: Globs of module or parameter names whose channels all stay.
        prune: Roles to prune beside channels and heads ("stream", "head_width").
        round_to: Kept counts are multiples of this number, or of each group's own; the groups' own
            numbers do not apply to groups that `layer_ratios` decide about.
        clock: Predicts latency in milliseconds; the budget is then of that, and within the global
            scope scores are spent per millisecond saved.
        best_effort: Take what is reachable where the ratio is not.
        keep_linked: Groups that user code takes to be of one size lose equal numbers.
        floors: Numbers of channels that groups keep at least, beside `LEAST_SHARE` of what they
            have.
        short: Where widths go in steps, the ratio may be missed by this share of it, if what is
            removed is then closer to the ratio.
        off_step: One group may leave its step, where more than `FAR` too much would go otherwise.

    Raises:
        UsageError: A glob matches nothing.
        CompressorError: Nothing can be pruned, the ratio is out of reach, or `layer_ratios` alone
            remove more.
    """
    groups = prunable(network, protect, prune)
    together = units(groups, network.linked if keep_linked else ())
    if not together:
        raise nothing_to_prune(network, protect)
    steps = _steps(groups, round_to)
    fixed = fixed_counts(network, groups, together, layer_ratios)
    free = [unit for unit in together if unit[0].name not in fixed and ratio is not None]
    competing = [group for unit in free for group in unit]
    widths = {g.name: narrower(g, steps[g.name], (floors or {}).get(g.name, 0)) for g in competing}
    order = _order(network, free, scores, losses, widths, scope, clock)
    always = round_to if isinstance(round_to, int) else 1
    given = {g.name: rounded(fixed[g.name], g, always) for g in groups if g.name in fixed}
    bill = _Bill(network, groups, free, given, of, clock)
    before = bill.before
    target = before * (1 - (ratio or 0)) if most is None else most
    if ratio is None and bill.of(bill.full) == before:
        raise removes_nothing()
    if ratio is not None and not best_effort:
        _refuse_what_cannot_be(ratio, target, bill, order, measured=losses is not None)
    in_steps = max(steps.values()) > 1
    meeting = _Meeting(order, bill, gives_back=scope == "global" or in_steps)
    taken, after = meeting.of(target)
    if in_steps and short:
        nearly = meeting.of(target + short * (before - target))
        taken, after = min((taken, after), nearly, key=lambda met: abs(bill.of(met[1]) - target))
    if in_steps and off_step:
        after = meeting.off_step(taken, after, target)
    kept = bill.counts(after)
    return Choice(
        keep={
            group.name: best(scores[group.name], kept[group.name])
            for unit in together
            for group in unit
            if kept[group.name] < group.size
        },
        unit=of,
        before=before,
        after=bill.of(after),
        fixed=frozenset(fixed),
        widths=widths,
        last=_last(order, taken, bill, scores),
    )


def _order(
    network: Network,
    free: Sequence[Unit],
    scores: Scores,
    losses: Scores | None,
    widths: Mapping[str, Sequence[int]],
    scope: str,
    clock: Clock | None,
) -> Moves:
    """Return the order in which the competing groups become narrower."""
    if losses is not None:
        return by_rank(free, losses, widths, np.max)
    if clock is not None and scope == "global":
        return by_time(network, free, scores, widths, clock)
    competing = [group for unit in free for group in unit]
    return by_rank(free, SCOPES[scope](network, competing, scores), widths, np.mean)


@dataclass(frozen=True)
class _Bill:
    """What the network costs at given widths of the units that compete.

    Attributes:
        network: The analysed network.
        groups: The groups that may lose channels.
        free: The units that compete.
        given: How many channels each group keeps that loses some without competing.
        unit: The budget's unit; with a clock it is only a name.
        clock: Predicts latency in milliseconds, where that is the budget.
    """

    network: Network
    groups: Sequence[Group]
    free: Sequence[Unit]
    given: Mapping[str, int]
    unit: str
    clock: Clock | None

    @cached_property
    def full(self) -> Ints:
        return np.array([unit[0].size for unit in self.free], np.int64)

    @cached_property
    def before(self) -> float:
        """Return the cost of the network as it is."""
        return self._of({})

    def of(self, after: Ints) -> float:
        return self._of(self.network.sizes(self.counts(after)))

    def counts(self, after: Ints) -> dict[str, int]:
        """Return how many channels each group keeps at these widths of the units."""
        left = {g.name: w for unit, w in zip(self.free, after.tolist(), strict=True) for g in unit}
        return {group.name: group.size for group in self.groups} | dict(self.given) | left

    def _of(self, sizes: Mapping[Axis, int]) -> float:
        if self.clock is not None:
            return self.clock.latency_ms(sizes)
        return self.network.cost.of(self.unit, sizes)


@dataclass(frozen=True)
class _Meeting:
    """The way a budget is met by moves in their order.

    Attributes:
        order: The moves.
        bill: The costs.
        gives_back: Whether moves are undone without which the budget is met as well.
    """

    order: Moves
    bill: _Bill
    gives_back: bool

    def of(self, target: float) -> tuple[int, Ints]:
        """Return how many moves are taken to get to `target`, and the units' widths then."""
        order, bill = self.order, self.bill
        taken = _first(len(order), lambda n: bill.of(order.after(n, bill.full)) <= target)
        if not self.gives_back:
            return taken, order.after(taken, bill.full)
        fits = lambda widths: bill.of(widths) <= target  # noqa: E731
        return taken, order.given_back(taken, bill.full, fits)

    def off_step(self, taken: int, after: Ints, target: float) -> Ints:
        """Return the widths; where they save far too much, with one unit between its steps."""
        bill, least = self.bill, target - FAR * self.bill.before
        fits = lambda widths: bill.of(widths) <= target  # noqa: E731
        closer = [after]
        if bill.of(after) < least:
            closer += self.order.in_between(after, taken, bill.full, fits)
        return next((widths for widths in closer if bill.of(widths) >= least), closer[-1])


def _refuse_what_cannot_be(
    ratio: float, target: float, bill: _Bill, order: Moves, *, measured: bool
) -> None:
    lowest, highest = bill.of(order.after(len(order), bill.full)), bill.of(bill.full)
    if lowest > target:
        reachable = 1 - lowest / bill.before
        raise out_of_reach(ratio, bill.unit, reachable, bool(bill.given), measured)
    if highest < target:
        raise overshot(ratio, bill.unit, 1 - highest / bill.before)


def _last(order: Moves, taken: int, bill: _Bill, scores: Scores) -> Last | None:
    """Return the move that met the budget, or None if none was taken."""
    if not taken:
        return None
    wide, narrow = order.after(taken - 1, bill.full), order.after(taken, bill.full)
    number = int(order.units[taken - 1])
    unit = bill.free[number]
    ends = slice(bill.full[number] - wide[number], bill.full[number] - narrow[number])
    lost = [np.sort(scores[group.name])[ends].sum() for group in unit]
    return Last(unit[0].name, float(np.mean(lost)), (bill.of(wide) - bill.of(narrow)) / bill.before)


def _steps(groups: Sequence[Group], round_to: int | Mapping[str, int]) -> dict[str, int]:
    if isinstance(round_to, int):
        return {group.name: round_to for group in groups}
    return {group.name: round_to.get(group.name, 1) for group in groups}


def best(scores: npt.NDArray[np.float64], count: int) -> tuple[int, ...]:
    """Return the indices of the `count` highest scores, ascending."""
    best = np.argsort(scores, kind="stable")[len(scores) - count :]
    return tuple(sorted(int(i) for i in best))


def _first(most: int, holds: Callable[[int], bool]) -> int:
    """Return the smallest number for which a monotone condition holds, or `most`."""
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
