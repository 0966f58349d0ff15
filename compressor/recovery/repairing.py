"""Repair of a sliced network on calibration data: what is done, and in which order.

Least squares come first. Batch-norm statistics are re-estimated only where nothing was re-fitted:
re-fitted layers aim at the original's activations, for which the old statistics are right, and new
ones cost accuracy (docs/decisions/0010-repair.md).
"""

from __future__ import annotations

from compressor import slicing
from compressor.data import Data, batches
from compressor.planning.calibration import Calibration, WithoutTargets
from compressor.planning.deciding import Planned
from compressor.processes import each_alone
from compressor.reconstruction import refit
from compressor.recover import recalibrate_batch_norm


def repair(sliced: slicing.Sliced, planned: Planned) -> str:
    """Repair both forms of the network in place; what was done, in words, or nothing."""
    train = planned.samples.train
    assert train is not None
    refitted = _refitted(sliced, planned, train)
    return refitted or _recalibrated(sliced, planned, train)


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
            progress=tick,
        )
    slicing.carry_weights(sliced.program, sliced.module)
    layers = "1 layer" if len(done) == 1 else f"{len(done)} layers"
    return f"{layers} re-fitted by least squares on {data.samples} samples" if done else ""


def _recalibrated(sliced: slicing.Sliced, planned: Planned, train: Data) -> str:
    options = planned.options
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
