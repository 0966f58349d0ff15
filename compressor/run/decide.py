"""Decide how much is to go and which channels go, for a network whose channels are scored.

Nothing is sliced yet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compressor.choose import (
    FAR,
    LATENCY,
    UNITS,
    Amount,
    AtMost,
    Bounds,
    ByPlan,
    Choice,
    Goal,
    OutOfReachError,
    Ranking,
    Share,
    WithinDrop,
    budget_of,
    goal_of,
    prunable,
    select,
)
from compressor.choose.budget import blocks_compete, is_timed
from compressor.choose.curves import Sensitivity, losses_of
from compressor.graph.mixtures import EXPERTS
from compressor.options import Options
from compressor.records import Plan
from compressor.run.found import Found, Search, to_report
from compressor.run.opened import Run
from compressor.run.opening import open_run
from compressor.run.replaying import keep_of_plan
from compressor.run.seeding import seeded
from compressor.run.subject import Subject
from compressor.run.timing import Timing
from compressor.run.without_blocks import take_named_blocks_out
from compressor.slicing import Sliced
from compressor.slicing.plan_file import read_plan
from compressor.watch import Stopwatch, Watch

Keep = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Decision:
    """Which channels go; nothing is sliced yet.

    Attributes:
        goal: How much was to be removed.
        choice: The channels that stay. None where only trying can make the choice; the network
            stays as it is until then.
        timing: The widths' steps that the choice follows, which may be finer than the run's.
        found: What was tried until the choice was made, where something was.
        search: The search for blocks to take out, where there was one.
        refusal: Why channels alone do not meet the goal, where blocks may: `choice` is the most
            that channels can do then.
    """

    goal: Goal
    choice: Choice | None
    timing: Timing
    found: Found | None = None
    search: Search | None = None
    refusal: OutOfReachError | None = None

    @property
    def keep(self) -> Keep:
        """Return group name -> indices of the channels that stay, without groups that keep all."""
        return self.choice.keep if self.choice is not None else {}

    @property
    def kept(self) -> dict[str, int]:
        """Return group name -> how many channels stay, without groups that keep all."""
        return {name: len(kept) for name, kept in self.keep.items()}


@dataclass(frozen=True)
class Cut:
    """A decision carried out: the smaller network, as a program and as a module."""

    decision: Decision
    sliced: Sliced


def predict(run: Run, decision: Decision) -> dict[str, tuple[float, float]]:
    """Return for each unit the whole network's cost before and after the decision."""
    units = [unit for unit in UNITS if unit != LATENCY or run.timing.clock is not None]
    return {unit: (run.before.total(unit), run.total(unit, decision.kept)) for unit in units}


def describe_budget(run: Run, decision: Decision) -> dict[str, Any]:
    """Return for the report what was asked for, and what the cost model predicts of the result."""
    of, predictions = run.unit, predict(run, decision)
    before, after = predictions[of]
    last = decision.choice.last if decision.choice is not None else None
    goal = decision.goal
    return {
        "ratio": goal.ratio_of(before) if isinstance(goal, Share | AtMost) else None,
        "of": of,
        "removed": 1 - after / before,
        "predicted": {unit: after for unit, (_, after) in predictions.items()},
        "price": last.price if last is not None else None,
        **({"plan": goal.file} if isinstance(goal, ByPlan) else {}),
        **to_report(decision.found),
        **({"search": decision.search.to_report()} if decision.search is not None else {}),
    }


def plan(
    subject: Subject, options: Options, watch: Watch, *, predict_latency: bool = False
) -> tuple[Run, Decision]:
    """Open a network and decide which of its channels go.

    Args:
        subject: The model and the data.
        options: What was asked for.
        watch: Is told of stages and progress.
        predict_latency: Time the layers even where the budget is not one of latency.
    """
    stopwatch = Stopwatch(watch)
    given = read_plan(Path(options.plan)) if options.plan is not None else None
    with seeded(options.seed):
        run = open_run(subject, options, stopwatch, given=given, predict_latency=predict_latency)
        if given is not None and given.removal is not None:
            run = take_named_blocks_out(run, given.removal.blocks)
        decision = _first_decision(run, given)
    if run.sensitivity is not None and decision.choice is not None and given is None:
        _say_what_was_used(run, run.sensitivity, decision.keep)
    return run, decision


def _first_decision(run: Run, given: Plan | None) -> Decision:
    """Take the given plan's channels, or choose by the options where nothing has to be tried."""
    goal = goal_of(run.options, run.total)
    match goal:
        case ByPlan():
            assert given is not None
            return Decision(goal, choice_of(run, keep_of_plan(given, run.network)), run.timing)
        case WithinDrop():
            return Decision(goal, None, run.timing)
        case _:
            with run.stopwatch.stage("select"):
                return decide_with_blocks(run, goal)


def decide_with_blocks(run: Run, goal: Amount) -> Decision:
    """Choose the channels that meet a goal; leave what these cannot do to blocks that may go."""
    try:
        return decide(run, goal)
    except OutOfReachError as refusal:
        if run.samples.train is None or not blocks_compete(run.options):
            raise
        return replace(decide(run, goal, best_effort=True), refusal=refusal)


def choice_of(run: Run, keep: Keep) -> Choice:
    """Return the given kept indices as a choice, with its costs."""
    of, counts = run.unit, {name: len(kept) for name, kept in keep.items()}
    return Choice(dict(keep), of, run.before.total(of), run.total(of, counts))


def decide(
    run: Run,
    goal: Amount,
    also_protect: Sequence[str] = (),
    *,
    best_effort: bool = False,
    floors: Mapping[str, int] | None = None,
    timing: Timing | None = None,
    scope: str | None = None,
) -> Decision:
    """Choose the channels that meet a goal by the options; `run` is not changed.

    Where widths that run well do not reach the goal, they are chosen in steps half as large; where
    they remove far too much, one group may lie between its steps.

    Args:
        run: The scored network.
        goal: How much is to be removed.
        also_protect: Further globs of what stays as it is.
        best_effort: Take what is reachable, whatever the options say.
        floors: Numbers of channels that groups keep at least.
        timing: Steps of widths to begin with; default the run's.
        scope: Between which groups channels compete; default as the options say.
    """
    network, options, timing = run.network, run.options, timing or run.timing
    protect = (*options.protect, *also_protect)
    losses = None
    if run.sensitivity is not None:
        wanted = prunable(network, protect, options.prune)
        losses = losses_of(run.sensitivity, network.groups, wanted)
    ranking = Ranking(run.scores, scope or options.scope, losses)
    while True:
        bounds = Bounds(
            protect=protect,
            prune=options.prune,
            layer_ratios=options.layer_ratios,
            round_to=timing.steps,
            floors=floors,
            keep_linked=options.keep_class,
        )
        budget = budget_of(options, goal, timing.clock, best_effort=best_effort)
        try:
            choice = select(network, ranking, budget, bounds)
        except OutOfReachError:
            finer = timing.finer()
            if options.round_to != "auto" or finer is None:
                raise
            timing = finer
        else:
            return Decision(goal, choice, timing)


def say_how_met(run: Run, decision: Decision) -> None:
    """Note, where clearly more or less is removed than was asked for, how much and why.

    So is noted what whole experts that go do to the others.
    """
    _say_what_routers_lose(run, decision)
    budget = describe_budget(run, decision)
    asked, removed, of = budget["ratio"], budget["removed"], budget["of"]
    if asked is None or decision.found is not None or abs(removed - asked) <= FAR:
        return
    said = f"{removed:.1%} of the {of} are removed, {asked:.1%} were asked for"
    if removed > asked:
        run.stopwatch.note(f"{said}: {_why_too_much(run.options)}")
    elif decision.refusal is None:  # else blocks may still go
        run.stopwatch.note(f"{said}: no more can go (--best-effort)")


def _say_what_routers_lose(run: Run, decision: Decision) -> None:
    """Note, where whole experts of mixtures go, how many, and what that does to the others."""
    sizes = {g.name: g.size for g in run.network.groups if g.role == EXPERTS}
    gone = [size - decision.kept[name] for name, size in sizes.items() if name in decision.kept]
    if gone:
        run.stopwatch.note(
            f"{sum(gone)} of {sum(sizes.values())} experts go (approximate): routers choose as "
            "many as before among those that are left, as though the others' logits were minus "
            "infinity"
        )


def _why_too_much(options: Options) -> str:
    """Say in words why more is removed than was asked for: the steps are too large."""
    # with "auto" and a counted budget, one group was left off its step already
    if options.round_to == 1 or (options.round_to == "auto" and not is_timed(options)):
        return "one channel is so much"
    of = "that run well" if options.round_to == "auto" else f"of {options.round_to}"
    return f"the steps {of} are so large; --round-to 1 comes within one channel"


def _say_what_was_used(run: Run, sensitivity: Sensitivity, keep: Keep) -> None:
    """Note how far the measured losses had to go, and whether they were this network's."""
    note, loaded, options = run.stopwatch.note, run.loaded, run.options
    cut = [group for group in run.network.groups if group.name in keep]
    losses = losses_of(sensitivity, run.network.groups, cut)
    found = [float(losses[g.name][g.size - len(keep[g.name]) - 1]) for g in cut]
    worst = max(filter(math.isfinite, found), default=0.0)
    note(f"no layer on its own loses more than {worst:.4g} of {sensitivity.metric}")
    if not all(map(math.isfinite, found)):
        note("but for those that --layer-ratio cuts further than was measured")
    if loaded.sha256 != sensitivity.model["sha256"]:
        note("the sensitivities were measured with other weights")
    if options.criterion != sensitivity.criterion:
        note(f"the sensitivities were measured with --criterion {sensitivity.criterion}")
