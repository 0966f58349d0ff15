"""Get from a choice to a smaller network that is repaired: at once, or in steps.

The training at the end is the pipeline's. In steps, each network is traced and scored anew after
the one before was repaired. At the end the cuts are composed into one cut of the original, which is
sliced once more and given the last step's weights: so a plan replays the same, however many steps
made it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from compressor import slicing
from compressor.errors import CompressorError
from compressor.planning.deciding import Goal, Planned, choice_of, decided
from compressor.planning.preparing import LATENCY, Prepared, anew
from compressor.recover import Schedule
from compressor.recovery.journal import Journal
from compressor.recovery.recovering import Judge, Moments, repaired
from compressor.recovery.training import Leg, trained
from compressor.selection import least
from compressor.stepping.composing import composed, keep_of
from compressor.stepping.correcting import corrected
from compressor.stepping.realising import staged

SCHEDULES: Mapping[str, Callable[[float, float], float]] = {
    "one-shot": lambda t, left: left,
    "linear": lambda t, left: 1 - (1 - left) * t,
    "geometric": lambda t, left: left**t,
    "cubic": lambda t, left: left + (1 - left) * (1 - t) ** 3,
    "cosine": lambda t, left: 1 - (1 - left) * (1 - math.cos(math.pi * t)) / 2,
}
"""Name of a schedule -> a function of the part `t` of the steps done and the final share `left`,
to the share that is left after them, from 1 to `left`. Cubic: Zhu and Gupta 2017, To prune, or
not to prune, equation 1."""


@dataclass
class Made:
    """A smaller network and how it came to be.

    Attributes:
        planned: The choice that it was made by.
        sliced: The network in both forms.
        moments: The steps so far, with the metrics after each.
        schedule: Where the schedule of its training stands.
    """

    planned: Planned
    sliced: slicing.Sliced
    moments: Moments
    schedule: Schedule


def at_once(planned: Planned, judge: Judge, journal: Journal) -> Made:
    """Slice and repair the network in one step."""
    planned, sliced = _chosen(planned, planned)
    moments = [{"step": "sliced", "metrics": judge("evaluate sliced", sliced.module)}]
    moments += repaired(sliced, planned, judge)
    return Made(planned, sliced, moments, Schedule(planned.options.epochs))


def _chosen(planned: Planned, root: Planned) -> tuple[Planned, slicing.Sliced]:
    """Slice the choice, corrected by the clock where a share of the time is asked for."""
    options, ratio = root.options, root.goal.ratio
    # what --max-drop has chosen stays as it was judged
    is_share = options.of == LATENCY and ratio is not None and options.max_drop is None
    return corrected(planned, root) if is_share and root.timing.is_here else staged(planned)


def stepped(root: Planned, judge: Judge, journal: Journal) -> Made:
    """Slice, repair and train the network in steps.

    The trainings are one schedule, whose optimizer follows the cuts.
    """
    options, moments = root.options, Moments()
    current: Prepared = root
    step: tuple[Planned, slicing.Sliced] | None = None
    indices: dict[str, dict[int, tuple[int, ...]]] = {}
    targets = _targets(root)
    schedule = Schedule(options.step_epochs * (len(targets) - 1) + options.epochs)
    for number, target in enumerate(targets, start=1):
        if step is not None:
            current = anew(root, step[1].module)
        whole = current.total(options.of)
        if whole <= target:
            schedule.horizon -= options.step_epochs
            continue
        goal = Goal(1 - target / whole, target, root.goal.is_limit)
        is_last = target == targets[-1]
        planned = decided(current, goal, floors=_floors(root))
        step = _chosen(planned, root) if is_last else staged(planned)
        planned, sliced = step
        prefix = f"step {number} of {len(targets)}: "
        metrics = judge(f"{prefix}evaluate sliced", sliced.module)
        moments.append({"step": f"{prefix}sliced", "metrics": metrics})
        schedule.cut(sliced.plan.tensors)
        moments += repaired(sliced, planned, judge, prefix=prefix)
        if not is_last:
            leg = Leg(options.step_epochs, schedule, f"step-{number}", prefix)
            moments += trained(sliced.module, planned, judge, leg, journal)
        indices = composed(indices, sliced.plan.tensors)
        if is_last:
            break
    assert step is not None
    planned, sliced = _as_one(root, step[0], step[1], keep_of(root.network, indices))
    return Made(planned, sliced, moments, schedule)


def _targets(root: Planned) -> list[float]:
    """Return what is left after each step, in the budget's unit."""
    assert root.goal.ratio is not None
    options, total = root.options, root.total(root.options.of)
    left, schedule = 1 - root.goal.ratio, SCHEDULES[options.schedule]
    shares = [schedule(number / options.steps, left) for number in range(1, options.steps)]
    return [*(total * share for share in shares if share > left), total * left]


def _floors(root: Planned) -> dict[str, int]:
    """Return how many channels each of the original's groups keeps at least over all steps."""
    return {group.name: least(group) for group in root.network.groups}


def _as_one(
    root: Planned,
    planned: Planned,
    sliced: slicing.Sliced,
    keep: Mapping[str, tuple[int, ...]],
) -> tuple[Planned, slicing.Sliced]:
    """Cut the original once, and give it the last step's weights."""
    choice = choice_of(root, keep)
    whole, made = staged(replace(root, choice=choice, found=planned.found))
    _check_same(made, sliced)
    slicing.carry_weights(sliced.program, made.program)
    slicing.carry_weights(made.program, made.module)
    return whole, made


def record_of(made: Made) -> dict[str, Any]:
    """Return what a run has reached as plain data and tensors, to be kept in the journal."""
    planned, state = made.planned, made.sliced.program.state_dict.items()
    return {
        "keep": {name: list(kept) for name, kept in planned.keep.items()},
        "weights": {n: t.detach().clone() for n, t in state if isinstance(t, torch.Tensor)},
        "moments": made.moments,
        "schedule": vars(made.schedule),
        "found": to_plain(planned.found),
    }


def remade(root: Planned, record: Mapping[str, Any]) -> Made:
    """Restore what a run had reached: slice its choice again, and load its weights."""
    keep = {name: tuple(kept) for name, kept in record["keep"].items()}
    choice = root.choice
    if choice is None or choice.keep != keep:
        choice = choice_of(root, keep)
    planned, sliced = staged(replace(root, choice=choice, found=record["found"]))
    with torch.no_grad():
        for name, tensor in sliced.program.state_dict.items():
            if name in record["weights"]:
                tensor.copy_(record["weights"][name])
    slicing.carry_weights(sliced.program, sliced.module)
    return Made(planned, sliced, list(record["moments"]), Schedule(**record["schedule"]))


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
