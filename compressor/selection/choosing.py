"""Selection: scores and a budget become the kept channels of each group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compressor.network import Network
from compressor.records import Group
from compressor.selection.candidates import fixed_counts, prunable, rounded, units
from compressor.selection.ranking import Clock, by_rank, by_time
from compressor.selection.refusals import (
    nothing_to_prune,
    out_of_reach,
    overshot,
    removes_nothing,
)
from compressor.selection.scopes import SCOPES, Scores

Keep = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Choice:
    """The kept indices of each group that loses some, and what is left of the budget's unit."""

    keep: Keep
    unit: str
    before: float
    after: float

    @property
    def removed(self) -> float:
        """Share of the whole network's total that is removed, 0 to 1."""
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
) -> Choice:
    """Drop the lowest-ranked channels until `ratio` of the network's total is gone.

    Args:
        network: The analysed network.
        scores: Per group one number per channel, comparable across groups.
        ratio: Share to remove of the whole network's `of`, protected parts included; it is met to
            within one channel (one rounding step, with `round_to`). None: only what `layer_ratios`
            say.
        most: What that leaves, where it is known exactly.
        of: "macs" of one sample, "params" or "channels"; with a clock a name alone.
        scope: A key of `SCOPES`.
        layer_ratios: Pairs of a glob and the share of its channels that each group loses whose
            producing layer matches; the last one that matches counts. The others meet the ratio.
        losses: Per group the loss when 1, 2, ... of its channels are dropped, never falling;
            infinite where they must not be. The ratio is then met at the smallest loss that no
            group exceeds, and the scores only say which channels of a group go.
        protect: Globs of module or parameter names whose channels all stay.
        prune: Roles to prune beside channels and heads ("stream", "head_width").
        round_to: Kept counts are multiples of it, or of what it says for each group.
        clock: Predicts latency in milliseconds; the budget is then of that, and scores are spent
            per millisecond saved, whatever the scope.
        best_effort: Take what is reachable where the ratio is not.
        keep_linked: Groups that user code takes to be of one size lose equal numbers.

    Raises:
        UsageError: A glob matches nothing.
        CompressorError: Nothing can be pruned, or the ratio is out of reach, or `layer_ratios`
            alone remove more.
    """
    groups = prunable(network, protect, prune)
    together = units(groups, network.linked if keep_linked else ())
    if not together:
        raise nothing_to_prune(network, protect)
    steps = _steps(groups, round_to)
    fixed = fixed_counts(network, groups, together, layer_ratios)
    free = [unit for unit in together if unit[0].name not in fixed and ratio is not None]
    competing = [group for unit in free for group in unit]
    if losses is not None:
        order = by_rank(free, losses, steps, np.max)
    elif clock is not None:
        order = by_time(network, free, scores, steps, clock)
    else:
        order = by_rank(free, SCOPES[scope](network, competing, scores), steps, np.mean)
    full = np.array([unit[0].size for unit in free], np.int64)
    given = {g.name: rounded(fixed[g.name], g, steps[g.name]) for g in groups if g.name in fixed}

    def counts(taken: int) -> dict[str, int]:
        widths = order.after(taken, full).tolist()
        left = {g.name: w for unit, w in zip(free, widths, strict=True) for g in unit}
        return {group.name: group.size for group in groups} | given | left

    def cost(taken: int) -> float:
        sizes = network.sizes(counts(taken))
        return network.cost.of(of, sizes) if clock is None else clock.latency_ms(sizes)

    before = network.cost.of(of) if clock is None else clock.latency_ms({})
    target = before * (1 - (ratio or 0)) if most is None else most
    lowest, highest = cost(len(order)), cost(0)
    if ratio is None and highest == before:
        raise removes_nothing()
    if ratio is not None and not best_effort:
        if lowest > target:
            raise out_of_reach(ratio, of, 1 - lowest / before, bool(fixed), losses is not None)
        if highest < target:
            raise overshot(ratio, of, 1 - highest / before)
    taken = _first(len(order), lambda n: cost(n) <= target)
    kept = counts(taken)
    return Choice(
        keep={
            group.name: best(scores[group.name], kept[group.name])
            for unit in together
            for group in unit
            if kept[group.name] < group.size
        },
        unit=of,
        before=before,
        after=cost(taken),
    )


def _steps(groups: Sequence[Group], round_to: int | Mapping[str, int]) -> dict[str, int]:
    if isinstance(round_to, int):
        return {group.name: round_to for group in groups}
    return {group.name: round_to.get(group.name, 1) for group in groups}


def best(scores: npt.NDArray[np.float64], count: int) -> tuple[int, ...]:
    """The indices of the highest scores, ascending."""
    best = np.argsort(scores, kind="stable")[len(scores) - count :]
    return tuple(sorted(int(i) for i in best))


def _first(most: int, holds: Callable[[int], bool]) -> int:
    """The smallest number for which a monotone condition holds, or `most`."""
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
