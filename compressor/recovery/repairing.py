"""Repair a sliced network on calibration data: decide what is done, and in which order.

Least squares come first. Batch-norm statistics are re-estimated only where nothing was re-fitted:
re-fitted layers aim at the original's activations, for which the old statistics are right, and new
ones cost accuracy (docs/decisions/0010-repair.md).
"""

from __future__ import annotations

from collections.abc import Sequence

from compressor import slicing
from compressor.data import Data, batches
from compressor.planning.calibration import Calibration, WithoutTargets
from compressor.planning.deciding import Planned
from compressor.processes import each_alone
from compressor.reconstruction import Memory, Refit, refit
from compressor.recover import has_running_statistics, recalibrate_batch_norm


def repair(sliced: slicing.Sliced, planned: Planned) -> str:
    """Repair both forms of the network in place; return in words what was done, or ""."""
    train = planned.samples.train
    assert train is not None
    refitted = _refitted(sliced, planned, train)
    done = refitted or _recalibrated(sliced, planned, train)
    if not done:
        planned.stopwatch.note(
            "nothing was repaired: what lost inputs can be re-fitted by no linear regression, and "
            "no batch norm was met"
        )
    return done


def _refitted(sliced: slicing.Sliced, planned: Planned, train: Data) -> str:
    trace, options = planned.trace, planned.options
    data = Calibration(trace, train, options)
    if data.obstacle:
        planned.stopwatch.note(f"nothing is re-fitted: {data.obstacle}")
        return ""
    keep = planned.keep
    with planned.stopwatch.stage("re-fit consumers") as tick, each_alone():
        done = refit(
            trace.program,
            sliced.program,
            planned.network,
            planned.network.masks(keep),
            lambda: WithoutTargets(data.batches()),
            device=options.device,
            seed=options.seed,
            memory=Memory.of(options.memory_bytes),
            progress=tick,
        )
    _tell(done, planned)
    slicing.carry_weights(sliced.program, sliced.module)
    layers = "1 layer" if len(done) == 1 else f"{len(done)} layers"
    return f"{layers} re-fitted by least squares on {data.samples} samples" if done else ""


def _tell(done: Sequence[Refit], planned: Planned) -> None:
    """Note which layers were re-fitted in parts, and which lose inputs but were not."""
    note, network = planned.stopwatch.note, planned.network
    parted = [each for each in done if each.parts > 1]
    if parted:
        counts = [f"{each.consumer} in {each.parts}" for each in parted]
        note(f"re-fitted part by part, for lack of memory (--memory): {some_of(counts)} parts")
    cut = [group for group in network.groups if len(planned.keep.get(group.name, ())) < group.size]
    members = [m for group in cut if group.name in planned.keep for m in group.members]
    losing = {network.aliases.get(m.tensor, m.tensor) for m in members if m.contracted}
    left = sorted(losing - {each.consumer for each in done})
    if left:
        note(
            f"not re-fitted: {some_of(left)} (used more than once, or not a linear regression of "
            "what it is given)"
        )


def some_of(names: Sequence[str]) -> str:
    """Join the first names with commas, and say how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")


def _recalibrated(sliced: slicing.Sliced, planned: Planned, train: Data) -> str:
    options = planned.options
    if not has_running_statistics(planned.trace.program.graph_module):
        return ""
    with planned.stopwatch.stage("re-estimate batch norm") as tick:
        some = batches(
            train,
            options.batch_size,
            seed=options.seed,
            limit=options.calibration,
            drop_last=True,
        )
        used = recalibrate_batch_norm(sliced.module, some, options.device, tick)
    return f"batch norm re-estimated on {used} samples" if used else ""
