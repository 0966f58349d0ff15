"""Decide how much is to go and which channels go, for a network whose channels are scored.

Nothing is sliced yet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compressor.errors import UsageError
from compressor.options import Options, flag
from compressor.planning.curves import Sensitivity, losses_of
from compressor.planning.plan_file import read_plan
from compressor.planning.preparing import LATENCY, UNITS, Prepared, prepare, seeded
from compressor.planning.replaying import keep_of_plan
from compressor.planning.subject import Subject
from compressor.selection import FAR, Choice, OutOfReachError, prunable, select
from compressor.watch import Stopwatch, Watch

Keep = Mapping[str, tuple[int, ...]]

SHORT = 0.005
"""The share of a ratio that may be missing where the next step of widths removes far more."""


@dataclass(frozen=True)
class Goal:
    """How much is to be removed. Without `ratio` and `most`, the layers' own ratios decide.

    Attributes:
        ratio: The share to remove, between 0 and 1.
        most: What may be left, in the budget's unit, where that is known exactly.
        is_limit: Whether `most` must never be exceeded; a ratio may be missed by `SHORT`.
    """

    ratio: float | None
    most: float | None = None
    is_limit: bool = False


@dataclass(frozen=True)
class Planned(Prepared):
    """Everything that is known up to the choice; nothing is sliced yet.

    Where `choice` is None, only trying can make the choice, and the network stays as it is.
    """

    goal: Goal
    choice: Choice | None
    found: Mapping[str, Any] = field(default_factory=dict)
    """What was measured on the way to the choice, for the report's budget."""

    @property
    def keep(self) -> Keep:
        return self.choice.keep if self.choice is not None else {}

    @property
    def kept(self) -> dict[str, int]:
        return {name: len(kept) for name, kept in self.keep.items()}

    def predictions(self) -> dict[str, tuple[float, float]]:
        """Return for each unit the whole network's cost before and after the choice."""
        units = [*UNITS, LATENCY] if self.timing.clock is not None else UNITS
        return {unit: (self.total(unit), self.total(unit, self.kept)) for unit in units}

    def budget(self) -> dict[str, Any]:
        """Return what was asked for, and what the cost model predicts of the result."""
        of, predictions = self.options.of, self.predictions()
        before, after = predictions[of]
        last = self.choice.last if self.choice is not None else None
        return {
            "ratio": self.goal.ratio,
            "of": of,
            "removed": 1 - after / before,
            "predicted": {unit: after for unit, (_, after) in predictions.items()},
            "price": last.price if last is not None else None,
            **self.found,
        }


def plan(
    subject: Subject, options: Options, watch: Watch, *, predict_latency: bool = False
) -> Planned:
    """Load, trace, analyse, score and select, or take the plan that the options name.

    Args:
        subject: The model and the data.
        options: What was asked for.
        watch: Is told of stages and progress.
        predict_latency: Time the layers even where the budget is not one of latency.
    """
    stopwatch = Stopwatch(watch)
    given = read_plan(Path(options.plan)) if options.plan is not None else None
    with seeded(options.seed):
        prepared = prepare(
            subject, options, stopwatch, given=given, predict_latency=predict_latency
        )
        if given is not None:
            choice = choice_of(prepared, keep_of_plan(given, prepared.network))
            found = {"plan": options.plan}
            return Planned(**vars(prepared), goal=Goal(None), choice=choice, found=found)
        if options.max_drop is not None:
            return Planned(**vars(prepared), goal=Goal(None), choice=None)
        with stopwatch.stage("select"):
            planned = decided(prepared, goal_of(prepared))
    if planned.sensitivity is not None:
        _say_what_was_used(planned, planned.sensitivity, planned.keep)
    return planned


def choice_of(prepared: Prepared, keep: Keep) -> Choice:
    """Return the given kept indices as a choice, with its costs."""
    of, counts = prepared.options.of, {name: len(kept) for name, kept in keep.items()}
    return Choice(dict(keep), of, prepared.total(of), prepared.total(of, counts))


def goal_of(prepared: Prepared) -> Goal:
    """Return how much is to be removed, as the options say.

    Raises:
        UsageError: The network is within the limit already.
    """
    limit = prepared.options.limit
    if limit is None:
        return Goal(prepared.options.ratio)
    before = prepared.total(limit.unit)
    if before <= limit.most:
        raise UsageError(
            f"the network has {before:,.10g} {limit.unit}, which is within {limit.most:,.10g} "
            "already"
            if limit.unit != LATENCY
            else f"a call takes {before:.4g} ms, which is within {limit.most:g} already",
            where=flag(limit.option),
            consequence="nothing is pruned",
            next_step="give a smaller number, or --ratio",
        )
    return Goal(1 - limit.most / before, limit.most, is_limit=True)


def decided(
    prepared: Prepared,
    goal: Goal,
    also_protect: Sequence[str] = (),
    *,
    best_effort: bool = False,
    floors: Mapping[str, int] | None = None,
) -> Planned:
    """Choose the channels that meet a goal by the options; `prepared` is not changed.

    Where widths that run well do not reach the goal, they are chosen in steps half as large; where
    they remove far too much, one group may lie between its steps.

    Args:
        prepared: The scored network.
        goal: How much is to be removed.
        also_protect: Further globs of what stays as it is.
        best_effort: Take what is reachable, whatever the options say.
        floors: Numbers of channels that groups keep at least.
    """
    network, options = prepared.network, prepared.options
    protect = (*options.protect, *also_protect)
    losses = None
    if prepared.sensitivity is not None:
        wanted = prunable(network, protect, options.prune)
        losses = losses_of(prepared.sensitivity, network.groups, wanted)
    before = {name: getattr(prepared, name) for name in Prepared.__dataclass_fields__}
    counted = options.of != LATENCY
    while True:
        timing = before["timing"]
        try:
            choice = select(
                network,
                prepared.scores,
                ratio=goal.ratio,
                most=goal.most,
                of=options.of,
                scope=options.scope,
                protect=protect,
                prune=options.prune,
                layer_ratios=options.layer_ratios,
                losses=losses,
                round_to=timing.steps,
                clock=timing.clock if options.of == LATENCY else None,
                best_effort=best_effort or options.best_effort,
                keep_linked=options.keep_class,
                floors=floors or {},
                short=SHORT if counted and not goal.is_limit else 0.0,
                off_step=counted and options.round_to == "auto",
            )
        except OutOfReachError:
            finer = timing.finer()
            if options.round_to != "auto" or finer is None:
                raise
            before["timing"] = finer
        else:
            return Planned(**before, goal=goal, choice=choice)


def say_how_met(planned: Planned) -> None:
    """Note it where clearly more or less is removed than was asked for."""
    budget = planned.budget()
    asked, removed, of = budget["ratio"], budget["removed"], budget["of"]
    if asked is None or planned.found or abs(removed - asked) <= FAR:
        return
    said = f"{removed:.1%} of the {of} are removed, {asked:.1%} were asked for"
    if removed < asked:
        planned.stopwatch.note(f"{said}: no more can go (--best-effort)")
        return
    planned.stopwatch.note(f"{said}: {_why_too_much(planned.options)}")


def _why_too_much(options: Options) -> str:
    """Say in words why more is removed than was asked for: the steps are too large."""
    # with "auto" and a counted budget, one group was left off its step already
    if options.round_to == 1 or (options.round_to == "auto" and options.of != LATENCY):
        return "one channel is so much"
    of = "that run well" if options.round_to == "auto" else f"of {options.round_to}"
    return f"the steps {of} are so large; --round-to 1 comes within one channel"


def _say_what_was_used(scored: Prepared, sensitivity: Sensitivity, keep: Keep) -> None:
    """Note how far the measured losses had to go, and whether they were this network's."""
    note, loaded, options = scored.stopwatch.note, scored.loaded, scored.options
    cut = [group for group in scored.network.groups if group.name in keep]
    losses = losses_of(sensitivity, scored.network.groups, cut)
    found = [float(losses[g.name][g.size - len(keep[g.name]) - 1]) for g in cut]
    worst = max(filter(math.isfinite, found), default=0.0)
    note(f"no layer on its own loses more than {worst:.4g} of {sensitivity.metric}")
    if not all(map(math.isfinite, found)):
        note("but for those that --layer-ratio cuts further than was measured")
    if loaded.sha256 != sensitivity.model["sha256"]:
        note("the sensitivities were measured with other weights")
    if options.criterion != sensitivity.criterion:
        note(f"the sensitivities were measured with --criterion {sensitivity.criterion}")
