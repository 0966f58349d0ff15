"""Find the smallest network that is no worse than is allowed, by trying.

A bisection over how much is removed, as a share of what --of says; each trial is sliced and
recovered as the result will be, and judged on data that decides nothing else and that no result is
judged by.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from compressor.choose import Share, WithinDrop
from compressor.errors import CompressorError
from compressor.recover import Schedule
from compressor.run.cutting import cut_as_stage
from compressor.run.decide import Decision, decide
from compressor.run.found import Attempt, ByAccuracy
from compressor.run.journal import Journal
from compressor.run.judging import Judge, repair_and_judge
from compressor.run.opened import Run
from compressor.run.training_legs import train_at_the_end

CLOSE = 0.01
"""The search ends when it knows the share to remove to within this share of the whole."""

_ALL = 0.999


def decide_until_accurate(run: Run, goal: WithinDrop) -> Decision:
    """Decide on the smallest network whose metric gets worse by at most --max-drop points.

    A point is a hundredth, of perplexity one of the original's. A metric of one's own is taken to
    be better when it is higher, unless it says otherwise (`Measure.of_function`).

    Raises:
        CompressorError: There is nothing to judge by, or even the smallest cut falls further.
    """
    judge = Judge(run, run.samples.validation)
    whole = judge("evaluate original for --max-drop", run.original.module)[judge.name]
    low, high = 0.0, _reachable(run)
    best: Decision | None = None
    trials: list[Attempt] = []
    seen: set[tuple[tuple[str, int], ...]] = set()
    while high - low > CLOSE:
        share = (low + high) / 2
        candidate = decide(run, Share(share), best_effort=True)
        kept = tuple(sorted(candidate.kept.items()))
        if kept in seen:
            break  # the steps of widths leave no other choice in between
        seen.add(kept)
        trial = _try(run, candidate, judge, goal, whole, len(trials) + 1)
        trials.append(trial)
        low, high = (share, high) if trial.is_within else (low, share)
        best = candidate if trial.is_within else best
    if best is None:
        raise _falls_further(goal.points, trials)
    return replace(best, found=ByAccuracy(whole, goal.points, trials))


def _reachable(run: Run) -> float:
    furthest = decide(run, Share(_ALL), best_effort=True)
    assert furthest.choice is not None
    return furthest.choice.removed


def _try(
    run: Run, candidate: Decision, judge: Judge, goal: WithinDrop, whole: float, number: int
) -> Attempt:
    options = run.options
    assert candidate.choice is not None
    removed = candidate.choice.removed
    made, silent = cut_as_stage(run, candidate), Judge(run, None)
    repair_and_judge(run, made, silent)
    train_at_the_end(run, made.sliced, silent, Schedule(options.epochs), Journal())
    stage = f"try {number}: {removed:.3f} of the {run.unit}"
    metric = judge(stage, made.sliced.module)[judge.name]
    drop = judge.measure.scale.lost(whole, metric)
    is_within = drop <= goal.points + 1e-9  # shares of samples are no exact numbers
    verdict = "within" if is_within else "too much"
    run.stopwatch.note(
        f"without {removed:.3f} of the {run.unit}: {drop:+.2f} points lost, {verdict}"
    )
    return Attempt(removed, metric, drop, is_within)


def _falls_further(max_drop: float, trials: list[Attempt]) -> CompressorError:
    least: Any = min(trials, key=lambda trial: trial.drop, default=None)
    return CompressorError(
        f"every network that was tried is worse by more than {max_drop:g} points",
        where=f"the least: {least.drop:.2f} points without {least.removed:.3f}" if least else "",
        consequence="nothing was written",
        next_step="allow more with --max-drop, or recover more (--epochs, --calibration)",
    )
