"""Measure how much each group of channels and each block bears (`compress sensitivity`).

One group after the other loses a share of its channels, those with the lowest scores; what the
network then computes is compared with before. Nothing is sliced: zeros in the consumers stand for
dropped channels (`compressor.slicing.masking`), and are undone. Then one whole block after the
other is left out of the traced operators. Nothing is repaired.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compressor.choose import best, prunable
from compressor.choose.curves import Curve, MissedBlock, Point, Sensitivity
from compressor.errors import CompressorError
from compressor.files.folder import SENSITIVITY_FILES, all_or_nothing
from compressor.graph.axes import keep_mask
from compressor.graph.blocks import Block
from compressor.graph.mixtures import EXPERTS
from compressor.graph.network import Network
from compressor.options import SensitivityOptions
from compressor.records import Group
from compressor.report import to_json
from compressor.run.opened import Opened
from compressor.run.opening import open_network
from compressor.run.rating import score_channels
from compressor.run.seeding import seeded
from compressor.run.subject import Subject
from compressor.score import Scores
from compressor.slicing.masking import Places, silence
from compressor.slicing.weights import named_tensors
from compressor.studies.inspect import macs_share
from compressor.studies.sensitivity.missed_blocks import (
    blocks_to_miss,
    measure_without,
    why_not,
)
from compressor.studies.sensitivity.yardsticks import Yardstick, yardstick_of
from compressor.watch import Stopwatch, Watch


def measure(subject: Subject, options: SensitivityOptions, watch: Watch) -> Sensitivity:
    """Cut each group that may be pruned by each ratio, alone, and measure what is lost.

    So is each block that may go, as a whole.

    With labels the metric is measured (a higher one is taken to be better), else "relative_mse":
    the outputs' squared difference from the uncut network's, relative to their square.

    Raises:
        CompressorError: The model cannot be loaded or captured, nothing can be pruned, the data
            does not fit, or outputs are zero or not finite.
    """
    stopwatch = Stopwatch(watch)
    with seeded(options.seed):
        opened = open_network(subject, options, stopwatch)
        network, scores = score_channels(opened)
        groups = prunable(network, options.protect, options.prune)
        yardstick = yardstick_of(opened, options)
        stopwatch.note(f"measured by {yardstick.metric} on {yardstick.words}")
        blocks = blocks_to_miss(opened.trace, network, options.protect)
        obstacle = why_not(opened.trace, yardstick.batches) if blocks else ""
        if obstacle:
            stopwatch.note(f"no whole blocks are measured: {obstacle}")
            blocks = []
        with stopwatch.stage("measure sensitivity") as tick:
            baseline = yardstick.measure(opened.trace.module)
            probe = _Probe(opened, network, scores, options, yardstick, baseline)
            curves, missed = [], []
            for group in groups:
                curves.append(probe.curve(group))
                tick(len(curves), len(groups) + len(blocks), group.name)
            for block in blocks:
                missed.append(probe.without(block))
                done = len(curves) + len(missed)
                tick(done, len(groups) + len(blocks), block.name)
    for curve in curves:
        if not curve.points:
            stopwatch.note(f"{curve.name} is not measured: {_why_not_measured(curve)}")
    loaded = opened.loaded
    return Sensitivity(
        model={
            "name": loaded.name,
            "recognised": loaded.recognised,
            "weights": loaded.weights,
            "sha256": loaded.sha256,
        },
        metric=yardstick.metric,
        better=yardstick.better,
        baseline=baseline,
        measured_on=yardstick.words,
        samples=yardstick.samples,
        criterion=opened.options.criterion,
        ratios=options.ratios,
        groups=tuple(curves),
        notes=tuple(stopwatch.notes),
        blocks=tuple(missed),
    )


@dataclass(frozen=True)
class _Probe:
    """Cuts one group at a time, in place, measures, and undoes the cut; or leaves a block out."""

    opened: Opened
    network: Network
    scores: Scores
    options: SensitivityOptions
    yardstick: Yardstick
    baseline: float

    def curve(self, group: Group) -> Curve:
        """Measure one group at each ratio; equal numbers of channels are measured once.

        The curve has no points where zeros do not stand for dropping: a consumer is not a tensor of
        the module, or a router chooses what is zero all the same.
        """
        network = self.network
        tensors = named_tensors(self.opened.trace.module)
        reachable = group.role != EXPERTS and (
            network.silenced([group.name]).keys() <= tensors.keys()
        )
        measured, points = {group.size: self.baseline}, list[Point]()
        for ratio in self.options.ratios if reachable else ():
            kept = group.size - min(group.size - 1, math.floor(ratio * group.size + 0.5))
            if kept not in measured:
                with silence(tensors, self._places(group, kept)):
                    measured[kept] = self.yardstick.measure(self.opened.trace.module)
                cut = f"with {kept} of {group.size} channels"
                _check_finite(measured[kept], cut, group.name, group.producer.tensor)
            points.append(Point(ratio, kept, measured[kept]))
        return Curve(
            name=group.name,
            layer=group.layer,
            size=group.size,
            role=group.role,
            exact=group.exact,
            macs_share=macs_share(network, group),
            points=tuple(points),
        )

    def without(self, block: Block) -> MissedBlock:
        """Measure the network without one block."""
        traced, measure = self.opened.trace, self.yardstick.measure
        missed = measure_without(traced, self.network, block, measure)
        _check_finite(missed.value, "without the block", block.name, block.name)
        return missed

    def _places(self, group: Group, kept: int) -> Places:
        network, name = self.network, group.name
        masks = network.masks({name: best(self.scores[name], kept)})
        return {
            tensor: {
                dim: np.flatnonzero(~keep_mask(network.tensors[tensor][dim], masks)).tolist()
                for dim in dims
            }
            for tensor, dims in network.silenced([name]).items()
        }


def _why_not_measured(curve: Curve) -> str:
    if curve.role == EXPERTS:
        return "zeros do not keep a router from choosing an expert"
    return "a constant in code consumes it"


def _check_finite(value: float, cut: str, name: str, protect: str) -> None:
    if not math.isfinite(value):
        raise CompressorError(
            f"the outputs are not finite {cut}",
            where=name,
            consequence="no sensitivity was measured",
            next_step=f"leave it out: --protect '{protect}'",
        )


# -- writing ---------------------------------------------------------------------------------------


def write(found: Sensitivity, folder: Path, *, force: bool = False) -> None:
    """Write sensitivity.json and its picture, both or neither.

    Raises:
        UsageError, CompressorError: As `compressor.files.folder.check_target` does.
    """
    from compressor.studies.sensitivity.curves_picture import draw_sensitivity

    with all_or_nothing(folder, force=force, files=SENSITIVITY_FILES) as staged:
        (staged / "sensitivity.json").write_text(to_json(found.to_dict()))
        draw_sensitivity(found, staged / "sensitivity.svg")
