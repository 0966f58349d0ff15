"""Get from a choice to a smaller network that is repaired: at once, or in steps.

The training at the end is the pipeline's. In steps, each network is traced and scored anew after
the one before was repaired. At the end the cuts are composed into one cut of the original, which is
sliced once more and given the last step's weights: so a plan replays the same, however many steps
made it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from compressor import slicing
from compressor.choose import AtMost, Goal, Share, least
from compressor.choose.budget import is_timed, targets_of
from compressor.errors import CompressorError
from compressor.recover import Schedule
from compressor.run.cutting import cut_as_stage
from compressor.run.decide import Cut, Decision, choice_of, decide
from compressor.run.found import ByAccuracy, Search, from_report, to_report
from compressor.run.journal import Journal
from compressor.run.judging import Judge, Moment, repair_and_judge
from compressor.run.opened import Run
from compressor.run.opening import reopen
from compressor.run.training_legs import Leg, train
from compressor.run.until_fast import cut_until_fast
from compressor.run.without_blocks import take_named_blocks_out
from compressor.slicing.composing import compose, keep_of


@dataclass
class Recovered:
    """A smaller network and how it came to be.

    Attributes:
        run: The original's run that it was cut from.
        cut: What was decided, and the network in both forms.
        moments: The steps so far, with the metrics after each.
        schedule: Where the schedule of its training stands.
    """

    run: Run
    cut: Cut
    moments: list[Moment]
    schedule: Schedule


def cut_at_once(run: Run, decision: Decision, judge: Judge, journal: Journal) -> Recovered:
    """Slice and repair the network in one step."""
    made = _cut_to_the_goal(run, decision, run, decision.goal)
    moments = [Moment("sliced", judge("evaluate sliced", made.sliced.module), is_cut=True)]
    moments += repair_and_judge(run, made, judge)
    return Recovered(run, made, moments, Schedule(run.options.epochs))


def _cut_to_the_goal(run: Run, decision: Decision, root: Run, goal: Goal) -> Cut:
    """Slice as decided, corrected by the clock where a share of the original's time is asked
    for."""
    # what --max-drop has chosen stays as it was judged
    is_judged = isinstance(decision.found, ByAccuracy)
    is_checked = is_timed(root.options) and root.timing.can_check and not is_judged
    if is_checked and isinstance(goal, Share | AtMost):
        return cut_until_fast(run, decision, root, goal)
    return cut_as_stage(run, decision)


def cut_in_steps(root: Run, decision: Decision, judge: Judge, journal: Journal) -> Recovered:
    """Slice, repair and train the network in steps.

    The trainings are one schedule, whose optimizer follows the cuts.
    """
    options, goal, moments = root.options, decision.goal, list[Moment]()
    assert isinstance(goal, Share | AtMost)
    run, made = root, None
    indices: dict[str, dict[int, tuple[int, ...]]] = {}
    targets = targets_of(options, goal, root.before.total(root.unit))
    schedule = Schedule(options.step_epochs * (len(targets) - 1) + options.epochs)
    for number, target in enumerate(targets, start=1):
        if made is not None:
            run = reopen(root, made.sliced.module)
        if run.total(root.unit) <= target.most:
            schedule.horizon -= options.step_epochs
            continue
        is_last = target == targets[-1]
        timing = decision.timing if run is root else run.timing
        step = decide(run, target, floors=_floors(root), timing=timing)
        made = _cut_to_the_goal(run, step, root, goal) if is_last else cut_as_stage(run, step)
        prefix = f"step {number} of {len(targets)}: "
        metrics = judge(f"{prefix}evaluate sliced", made.sliced.module)
        moments.append(Moment(f"{prefix}sliced", metrics, is_cut=True))
        schedule.cut(made.sliced.plan.tensors)
        moments += repair_and_judge(run, made, judge, prefix=prefix)
        if not is_last:
            leg = Leg(options.step_epochs, schedule, f"step-{number}", prefix)
            moments += train(run, made.sliced.module, judge, leg, journal)
        indices = compose(indices, made.sliced.plan.tensors)
        if is_last:
            break
    assert made is not None
    whole_cut = _cut_as_one(root, decision, made, keep_of(root.network, indices))
    return Recovered(root, whole_cut, moments, schedule)


def _floors(root: Run) -> dict[str, int]:
    """Return how many channels each of the original's groups keeps at least over all steps."""
    return {group.name: least(group) for group in root.network.groups}


def _cut_as_one(
    root: Run, decision: Decision, last: Cut, keep: Mapping[str, tuple[int, ...]]
) -> Cut:
    """Cut the original once, and give it the last step's weights."""
    found = last.decision.found
    whole = replace(decision, choice=choice_of(root, keep), found=found)
    made = cut_as_stage(root, whole)
    _check_same(made.sliced, last.sliced)
    slicing.carry_weights(last.sliced.program, made.sliced.program)
    slicing.carry_weights(made.sliced.program, made.sliced.module)
    return made


def record_of(made: Recovered) -> dict[str, Any]:
    """Return what a run has reached as plain data and tensors, to be kept in the journal."""
    decision, state = made.cut.decision, made.cut.sliced.program.state_dict.items()
    search = decision.search
    return {
        "search": search.to_report() if search is not None else None,
        "keep": {name: list(kept) for name, kept in decision.keep.items()},
        "weights": {n: t.detach() for n, t in state if isinstance(t, torch.Tensor)},
        "moments": [asdict(moment) for moment in made.moments],
        "schedule": made.schedule.to_dict(),
        "found": to_plain(to_report(decision.found)),
    }


def restore(root: Run, decision: Decision, record: Mapping[str, Any]) -> Recovered:
    """Restore what a run had reached: slice its choice again, and load its weights."""
    if record.get("search") is not None:
        search = Search.from_report(record["search"])
        decision = replace(decision, search=search)
        root = take_named_blocks_out(root, search.blocks) if search.blocks else root
    keep = {name: tuple(kept) for name, kept in record["keep"].items()}
    choice = decision.choice
    if choice is None or choice.keep != keep:
        choice = choice_of(root, keep)
    found = from_report(record["found"])
    made = cut_as_stage(root, replace(decision, choice=choice, found=found))
    with torch.no_grad():
        for name, tensor in made.sliced.program.state_dict.items():
            if name in record["weights"]:
                tensor.copy_(record["weights"][name])
    slicing.carry_weights(made.sliced.program, made.sliced.module)
    moments = [Moment(**kept) for kept in record["moments"]]
    return Recovered(root, made, moments, Schedule(**record["schedule"]))


def to_plain(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values as plain numbers and texts, as a report holds them."""
    plain: dict[str, Any] = json.loads(json.dumps(found, default=float))
    return plain


def _check_same(made: slicing.Sliced, last: slicing.Sliced) -> None:
    """Check that every tensor of the single cut has the shape of the last step's.

    Raises:
        CompressorError: One has not.
    """
    found = {name: tensor.shape for name, tensor in last.program.state_dict.items()}
    other = [
        name
        for name, tensor in made.program.state_dict.items()
        if isinstance(tensor, torch.Tensor) and found.get(name) != tensor.shape
    ]
    if other:
        raise CompressorError(
            "the network of the last step is not the original cut once",
            where=", ".join(other[:3]),
            consequence="nothing was written",
            next_step="prune in one step (--steps 1); please report the network",
        )
