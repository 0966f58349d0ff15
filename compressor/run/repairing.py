"""Repair a sliced network on calibration data: decide what is done, and in which order.

Least squares come first. Batch-norm statistics are re-estimated only where nothing was re-fitted:
re-fitted layers aim at the original's activations, for which the old statistics are right, and new
ones cost accuracy (docs/decisions/0010-repair.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch.export import ExportedProgram

from compressor import slicing
from compressor.least_squares import (
    USUAL_ROWS,
    Memory,
    Recording,
    Refit,
    RowCount,
    Turning,
    Whole,
    Workspace,
    refit,
    turn_heads,
    with_tensors,
)
from compressor.listing import some_of
from compressor.loading.data import Data, batches
from compressor.options import ScoringOptions
from compressor.processes import each_alone
from compressor.records import Trace
from compressor.recover import has_running_statistics, recalibrate_batch_norm
from compressor.run.decide import Cut, Keep
from compressor.run.opened import Run
from compressor.score.data import CalibrationBatches, WithoutTargets
from compressor.watch import Tick


def repair(run: Run, made: Cut) -> str:
    """Repair both forms of the network in place; return in words what was done, or ""."""
    train = run.samples.train
    assert train is not None
    done = _refit(run, made, train) or _re_estimate(run, made.sliced, train)
    if not done:
        run.stopwatch.note(
            "nothing was repaired: what lost inputs can be re-fitted by no linear regression, and "
            "no batch norm was met"
        )
    return done


def _refit(run: Run, made: Cut, train: Data) -> str:
    trace, options, sliced = run.trace, run.options, made.sliced
    data = CalibrationBatches(trace, train, options)
    if data.obstacle:
        run.stopwatch.note(f"nothing is re-fitted: {data.obstacle}")
        return ""
    with run.stopwatch.stage("re-fit consumers") as tick, each_alone():
        done, turning = refit_program(run, sliced.program, made.decision.keep, data, tick)
    _tell(run, made.decision.keep, done)
    _tell_of_heads(run, turning)
    slicing.carry_weights(sliced.program, sliced.module)
    layers = "1 layer" if len(done) == 1 else f"{len(done)} layers"
    return f"{layers} re-fitted by least squares on {data.samples} samples" if done else ""


def quiet(done: int, total: int, what: str) -> None:
    """Tell nobody of progress."""


def refit_program(
    run: Run,
    program: ExportedProgram,
    keep: Keep,
    data: CalibrationBatches,
    progress: Tick = quiet,
    rows: RowCount = USUAL_ROWS,
    recording: Recording | None = None,
) -> tuple[list[Refit], Turning]:
    """Turn heads that lose widths, and re-fit a smaller program's consumers, in place.

    Args:
        run: The run that it was cut from.
        program: The smaller program.
        keep: The channels that it keeps of each group.
        data: What it is re-fitted on.
        progress: Is told which layer is re-fitted.
        rows: The number of output positions that regressions take.
        recording: What is known already of the original's values on these samples.
    """
    slicing.read_program(program)
    masks = run.network.masks(keep)
    workspace = workspace_of(run.options, progress, rows)

    def inputs() -> WithoutTargets:
        return WithoutTargets(data.batches())

    turning = turn_heads(run.trace.program, program, run.network, masks, inputs, workspace)
    aim = _aim_of(run.trace, turning, recording)
    done = refit(turning.program, program, run.network, masks, inputs, workspace, whole=aim)
    return done, turning


def workspace_of(
    options: ScoringOptions, progress: Tick = quiet, rows: RowCount = USUAL_ROWS
) -> Workspace:
    """Return where regressions are computed, by the options (see `refit_program`)."""
    memory = Memory.of(options.memory_bytes, rows)
    return Workspace(options.device, seed=options.seed, memory=memory, progress=progress)


def _aim_of(trace: Trace, turning: Turning, recording: Recording | None) -> Whole:
    """Return what a repair aims at: the whole network, where blocks were taken out of it."""
    shorter = trace.shorter
    if shorter is None:
        aim = Whole(turning.program)
    else:
        whole = with_tensors(shorter.whole.program, turning.tensors)
        aim = Whole(whole, shorter.stands_for)
    is_known = recording is not None and recording.program is aim.program
    return replace(aim, recording=recording) if is_known else aim


def _tell(run: Run, keep: Keep, done: Sequence[Refit]) -> None:
    """Note which layers were re-fitted in parts, and which lose inputs but were not."""
    note, network = run.stopwatch.note, run.network
    parted = [each for each in done if each.parts > 1]
    if parted:
        counts = [f"{each.consumers[0]} in {each.parts}" for each in parted]
        note(f"re-fitted part by part, for lack of memory (--memory): {some_of(counts)} parts")
    cut = [group for group in network.groups if len(keep.get(group.name, ())) < group.size]
    members = [m for group in cut if group.name in keep for m in group.members]
    losing = {network.aliases.get(m.tensor, m.tensor) for m in members if m.contracted}
    left = sorted(losing - {name for each in done for name in each.consumers})
    if left:
        note(
            f"not re-fitted: {some_of(left)} (used more than once, or not a linear regression of "
            "what it is given)"
        )


def _tell_of_heads(run: Run, turning: Turning) -> None:
    """Note what heads that lost channels were fitted to, and which were not."""
    for is_product, what in ((True, "the logits"), (False, "what values add to outputs")):
        heads = [each for each in turning.turned if each.is_product is is_product]
        if heads:
            before, after = (
                sum(getattr(each, when) for each in heads) / len(heads)
                for when in ("before", "after")
            )
            run.stopwatch.note(
                f"heads keep the channels that make most of {what} (in {len(heads)} places): "
                f"{after:.1%} of the mean square is lost, not {before:.1%}"
            )
    if turning.left:
        run.stopwatch.note(
            f"heads' channels are cut as they are, not fitted, in {some_of(turning.left)} (more "
            "than moves stands between them and where they meet, such as a rotary embedding or a "
            "norm, or they are read more than once)"
        )


def _re_estimate(run: Run, sliced: slicing.Sliced, train: Data) -> str:
    options = run.options
    if not has_running_statistics(run.trace.program.graph_module):
        return ""
    with run.stopwatch.stage("re-estimate batch norm") as tick:
        some = batches(
            train,
            options.batch_size,
            seed=options.seed,
            limit=options.calibration,
            drop_last=True,
        )
        used = recalibrate_batch_norm(sliced.module, some, options.device, tick)
    return f"batch norm re-estimated on {used} samples" if used else ""
