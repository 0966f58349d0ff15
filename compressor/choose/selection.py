"""Select how wide each unit stays, from scores and a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from compressor.choose.budget import FAR, Budget, LayersAlone
from compressor.choose.moves import Ints, Moves, by_rank, by_time
from compressor.choose.refusals import out_of_reach, overshot, removes_nothing
from compressor.choose.scopes import SCOPES, Scores
from compressor.choose.units import Bounds, Unit, units_of
from compressor.graph.axes import Axis
from compressor.graph.network import Network

Keep = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Ranking:
    """What goes first.

    Attributes:
        scores: Per group one number per channel, comparable across groups; the lowest go first.
        scope: A key of `SCOPES`.
        losses: Per group the loss when 1, 2, ... of its channels are dropped, never falling;
            infinite where they must not be. The budget is then met at the smallest loss that no
            unit exceeds, and the scores only say which channels of a group go.
    """

    scores: Scores
    scope: str = "global"
    losses: Scores | None = None


@dataclass(frozen=True)
class Last:
    """The move that met the budget: what it cost is the budget's shadow price.

    Attributes:
        unit: Name of the unit that became narrower.
        lost: Sum of the scores of its channels.
        saved: Share of the network's total that it saved.
    """

    unit: str
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
        cost_unit, before, after: The unit of cost, and how much of it there was and is.
        units: What could go, and the widths that it could have got down to; empty where nothing
            was chosen, since a plan says what is kept.
        last: The last move, or None where the budget took none.
    """

    keep: Keep
    cost_unit: str
    before: float
    after: float
    units: tuple[Unit, ...] = ()
    last: Last | None = None

    @property
    def removed(self) -> float:
        """Return the share of the whole network's total that is removed, 0 to 1."""
        return 1 - self.after / self.before

    def unit_of(self, group: str) -> Unit | None:
        """Return the unit that a group was chosen in, if it was."""
        return self._units_by_group.get(group)

    @cached_property
    def _units_by_group(self) -> dict[str, Unit]:
        return {group.name: unit for unit in self.units for group in unit.groups}


ALL = Bounds()
"""All that goes without being asked for, down to any width."""


def select(network: Network, ranking: Ranking, budget: Budget, bounds: Bounds = ALL) -> Choice:
    """Drop the lowest-ranked channels until the budget is met.

    It is met to within one channel, or one step of widths. By the clock, and where channels compete
    across the network, scores are spent per millisecond saved.

    Args:
        network: The analysed network.
        ranking: What goes first.
        budget: How much is to go of the whole network's cost, protected parts included.
        bounds: What may go.

    Raises:
        UsageError: A glob matches nothing.
        CompressorError: Nothing can be pruned, the budget is out of reach, or `layer_ratios` alone
            remove more.
    """
    units = units_of(network, bounds)
    asks = not isinstance(budget.goal, LayersAlone)
    free = [unit for unit in units if unit.fixed is None and asks]
    bill = _Bill(network, free, [unit for unit in units if unit.fixed is not None], budget)
    order = _order(network, free, ranking, budget)
    if not asks and bill.of(bill.full) == bill.before:
        raise removes_nothing()
    if asks and not budget.best_effort:
        _refuse_what_cannot_be(bill, order, measured=ranking.losses is not None)
    in_steps = any(max(bounds.step(g), unit.step) > 1 for unit in units for g in unit.groups)
    meeting = _Meeting(order, bill, gives_back=ranking.scope == "global" or in_steps)
    taken, after = meeting.meet(bill.target)
    if in_steps and budget.short:
        nearly = meeting.meet(bill.target + budget.short * (bill.before - bill.target))
        taken, after = min((taken, after), nearly, key=lambda m: abs(bill.of(m[1]) - bill.target))
    if in_steps and budget.off_step:
        after = meeting.leave_step(taken, after, bill.target)
    return Choice(
        keep=_keep(units, ranking.scores, bill.counts(after)),
        cost_unit=budget.unit,
        before=bill.before,
        after=bill.of(after),
        units=(*bill.given, *free),
        last=_last(order, taken, bill, ranking.scores),
    )


def _keep(units: Sequence[Unit], scores: Scores, counts: Mapping[str, int]) -> Keep:
    """Return the kept indices of the groups of all units that lose some."""
    keep: Keep = {}
    for unit in units:
        width = counts[unit.name] // unit.times[0] if unit.name in counts else unit.size
        keep |= unit.keep(scores, width) if width < unit.size else {}
    return keep


def _order(network: Network, free: Sequence[Unit], ranking: Ranking, budget: Budget) -> Moves:
    """Return the order in which the competing units become narrower."""
    if ranking.losses is not None:
        return by_rank(free, ranking.losses, np.max)
    if budget.clock is not None and ranking.scope == "global":
        return by_time(network, free, ranking.scores, budget.clock)
    competing = [group for unit in free for group in unit.groups]
    return by_rank(free, SCOPES[ranking.scope](network, competing, ranking.scores), np.mean)


@dataclass(frozen=True)
class _Bill:
    """What the network costs at given widths of the units that compete.

    Attributes:
        network: The analysed network.
        free: The units that compete.
        given: The units that lose channels without competing.
        budget: Says in which unit costs are, and how much may be left.
    """

    network: Network
    free: Sequence[Unit]
    given: Sequence[Unit]
    budget: Budget

    @cached_property
    def full(self) -> Ints:
        return np.array([unit.size for unit in self.free], np.int64)

    @cached_property
    def before(self) -> float:
        """Return the cost of the network as it is."""
        return self._of({})

    @cached_property
    def target(self) -> float:
        """Return the cost that may be left."""
        goal = self.budget.goal
        return self.before if isinstance(goal, LayersAlone) else goal.left_of(self.before)

    def of(self, after: Ints) -> float:
        return self._of(self.network.sizes(self.counts(after)))

    def fitting(self, target: float) -> Callable[[Ints], bool]:
        """Return what tells whether given widths can be, and cost no more than a target."""
        steps = np.array([unit.step for unit in self.free], np.int64)

        def fits(widths: Ints) -> bool:
            can_be = (widths % steps == 0) | (widths == self.full)
            return bool(can_be.all()) and self.of(widths) <= target

        return fits

    def counts(self, after: Ints) -> dict[str, int]:
        """Return how many channels each group keeps at these widths of the units."""
        counts: dict[str, int] = {}
        for unit in self.given:
            counts |= unit.counts(unit.fixed or unit.size)
        for unit, width in zip(self.free, after.tolist(), strict=True):
            counts |= unit.counts(width)
        return counts

    def _of(self, sizes: Mapping[Axis, int]) -> float:
        return self.budget.cost(self.network, sizes)


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

    def meet(self, target: float) -> tuple[int, Ints]:
        """Return how many moves are taken to get to `target`, and the units' widths then."""
        order, bill = self.order, self.bill
        taken = _first(len(order), lambda n: bill.of(order.after(n, bill.full)) <= target)
        if not self.gives_back:
            return taken, order.after(taken, bill.full)
        return taken, order.give_back(taken, bill.full, bill.fitting(target))

    def leave_step(self, taken: int, after: Ints, target: float) -> Ints:
        """Return the widths; where they save far too much, with one unit between its steps."""
        bill, least = self.bill, target - FAR * self.bill.before
        closer = [after]
        if bill.of(after) < least:
            closer += self.order.in_between(after, taken, bill.full, bill.fitting(target))
        return next((widths for widths in closer if bill.of(widths) >= least), closer[-1])


def _refuse_what_cannot_be(bill: _Bill, order: Moves, *, measured: bool) -> None:
    goal, unit = bill.budget.goal, bill.budget.unit
    assert not isinstance(goal, LayersAlone)
    ratio = goal.ratio_of(bill.before)
    lowest, highest = bill.of(order.after(len(order), bill.full)), bill.of(bill.full)
    if lowest > bill.target:
        reachable = 1 - lowest / bill.before
        raise out_of_reach(ratio, unit, reachable, fixed=bool(bill.given), measured=measured)
    if highest < bill.target:
        raise overshot(ratio, unit, 1 - highest / bill.before)


def _last(order: Moves, taken: int, bill: _Bill, scores: Scores) -> Last | None:
    """Return the move that met the budget, or None if none was taken."""
    if not taken:
        return None
    wide, narrow = order.after(taken - 1, bill.full), order.after(taken, bill.full)
    number = int(order.units[taken - 1])
    unit = bill.free[number]
    first, last = bill.full[number] - wide[number], bill.full[number] - narrow[number]
    lost = [
        np.sort(scores[group.name])[first * times : last * times].sum()
        for group, times in zip(unit.groups, unit.times, strict=True)
    ]
    return Last(unit.name, float(np.mean(lost)), (bill.of(wide) - bill.of(narrow)) / bill.before)


def _first(most: int, holds: Callable[[int], bool]) -> int:
    """Return the smallest number for which a monotone condition holds, or `most`."""
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
