"""Measure how much each group of channels bears (`compress sensitivity`).

One group after the other loses a share of its channels, those with the lowest scores; what the
network then computes is compared with before. Nothing is sliced: zeros in the consumers stand for
dropped channels (`compressor.slicing.masking`), and are undone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.choose import best, prunable
from compressor.choose.curves import HIGHER, LOWER, Curve, Point, Sensitivity
from compressor.errors import CompressorError
from compressor.files.folder import SENSITIVITY_FILES, all_or_nothing
from compressor.graph.axes import keep_mask
from compressor.graph.network import Network
from compressor.loading.data import batches
from compressor.options import SensitivityOptions
from compressor.records import ExampleInputs, Group
from compressor.recover import evaluate
from compressor.report import to_json
from compressor.run.opened import Opened
from compressor.run.opening import open_network
from compressor.run.rating import score_channels
from compressor.run.seeding import seeded
from compressor.run.subject import Subject, metric_of
from compressor.score import Scores
from compressor.slicing.compare import outputs_of
from compressor.slicing.masking import Places, silence
from compressor.slicing.weights import named_tensors
from compressor.studies.inspect import macs_share
from compressor.watch import Stopwatch, Watch

RELATIVE_MSE = "relative_mse"

# -- measuring -----------------------------------------------------------------------------------


def measure(subject: Subject, options: SensitivityOptions, watch: Watch) -> Sensitivity:
    """Cut each group that may be pruned by each ratio, alone, and measure what is lost.

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
        yardstick = _yardstick(opened, options)
        stopwatch.note(f"measured by {yardstick.metric} on {yardstick.words}")
        with stopwatch.stage("measure sensitivity") as tick:
            baseline = yardstick.measure()
            probe = _Probe(opened, network, scores, options, yardstick, baseline)
            curves = []
            for done, group in enumerate(groups, start=1):
                curves.append(probe.curve(group))
                tick(done, len(groups), group.name)
    for curve in curves:
        if not curve.points:
            stopwatch.note(f"{curve.name} is not measured: a constant in code consumes it")
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
    )


@dataclass(frozen=True)
class _Yardstick:
    """What is measured of the network as it is now.

    Attributes:
        metric: Its name.
        better: "higher" or "lower".
        measure: Returns the metric.
        samples: Number of samples that it is measured on.
        words: What it is measured on, in words.
    """

    metric: str
    better: str
    measure: Callable[[], float]
    samples: int
    words: str


def _yardstick(opened: Opened, options: SensitivityOptions) -> _Yardstick:
    samples, module = opened.samples, opened.trace.module.to(options.device)
    data = samples.test or samples.unlabelled
    if data is None:
        divergence = _Divergence(module, [opened.trace.examples], options.device)
        words = f"the example inputs ({opened.examples.origin})"
        return _Yardstick(RELATIVE_MSE, LOWER, divergence, opened.trace.batch, words)
    held = list(batches(data, options.batch_size, seed=options.seed, limit=options.samples))
    count = min(len(data), options.samples)
    words = f"{count} samples of {data.name}"
    if samples.test is None:
        calls = [ExampleInputs(inputs.args, inputs.kwargs) for inputs, _ in held]
        divergence = _Divergence(module, calls, options.device)
        return _Yardstick(RELATIVE_MSE, LOWER, divergence, count, words)
    name, metric = metric_of(opened.subject, options)

    def judge() -> float:
        return evaluate(module, held, metric, options.device)

    return _Yardstick(name, HIGHER, judge, count, words)


class _Divergence:
    """The error Σ |y - y0|² / Σ |y0|² over all floating outputs, y0 the uncut network's."""

    def __init__(self, module: nn.Module, calls: Sequence[ExampleInputs], device: str) -> None:
        self.module, self.calls, self.device = module, calls, device
        self.reference = list(self._outputs())
        self.square = sum(float(y.square().sum()) for y in self.reference)
        if not self.square > 0 or not math.isfinite(self.square):
            what = "zero" if self.square == 0 else "not finite"
            raise CompressorError(
                f"the network's outputs are {what} for these inputs: there is nothing to compare",
                consequence="no sensitivity was measured",
                next_step="give --data, other inputs, or a network with trained weights",
            )

    def __call__(self) -> float:
        pairs = zip(self._outputs(), self.reference, strict=True)
        return sum(float((y - before).square().sum()) for y, before in pairs) / self.square

    def _outputs(self) -> Iterator[Tensor]:
        for call in self.calls:
            args, kwargs = pytree.tree_map_only(
                Tensor, lambda leaf: leaf.to(self.device), (call.args, dict(call.kwargs))
            )
            for output in outputs_of(self.module, ExampleInputs(args, kwargs)):
                if output.is_floating_point():
                    yield output.cpu().double()


@dataclass(frozen=True)
class _Probe:
    """Cuts one group at a time, in place, measures, and undoes the cut."""

    opened: Opened
    network: Network
    scores: Scores
    options: SensitivityOptions
    yardstick: _Yardstick
    baseline: float

    def curve(self, group: Group) -> Curve:
        """Measure one group at each ratio; equal numbers of channels are measured once.

        The curve has no points where a consumer is not a tensor of the module.
        """
        network = self.network
        tensors = named_tensors(self.opened.trace.module)
        reachable = network.silenced([group.name]).keys() <= tensors.keys()
        measured, points = {group.size: self.baseline}, list[Point]()
        for ratio in self.options.ratios if reachable else ():
            kept = group.size - min(group.size - 1, math.floor(ratio * group.size + 0.5))
            if kept not in measured:
                with silence(tensors, self._places(group, kept)):
                    measured[kept] = self._finite(self.yardstick.measure(), group, kept)
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

    def _finite(self, value: float, group: Group, kept: int) -> float:
        if not math.isfinite(value):
            raise CompressorError(
                f"the outputs are not finite with {kept} of {group.size} channels",
                where=group.name,
                consequence="no sensitivity was measured",
                next_step=f"leave the group out: --protect '{group.producer.tensor}'",
            )
        return value


# -- showing and writing -------------------------------------------------------------------------


def write(found: Sensitivity, folder: Path, *, force: bool = False) -> None:
    """Write sensitivity.json and its picture, both or neither.

    Raises:
        UsageError, CompressorError: As `compressor.files.folder.check_target` does.
    """
    from compressor.studies.sensitivity.curves_picture import draw_sensitivity

    with all_or_nothing(folder, force=force, files=SENSITIVITY_FILES) as staged:
        (staged / "sensitivity.json").write_text(to_json(found.to_dict()))
        draw_sensitivity(found, staged / "sensitivity.svg")


def table(found: Sensitivity) -> Table:
    """Build a table for the terminal: a row per group, a column per ratio."""
    shown = Table(
        title=f"{found.metric} of {found.model['name']} with one group cut "
        f"(uncut: {_value(found, found.baseline)})",
        title_justify="left",
    )
    shown.add_column("group", overflow="fold")
    shown.add_column("role")
    for header in ("size", "share of MACs", *(f"-{ratio:.0%}" for ratio in found.ratios)):
        shown.add_column(header, justify="right")
    for curve in found.groups:
        name = curve.name if curve.exact else f"{curve.name} (approximate)"
        values = [_value(found, point.value) for point in curve.points]
        cells = [name, curve.role, str(curve.size), f"{curve.macs_share:.1%}"]
        shown.add_row(*map(Text, [*cells, *(values or ["" for _ in found.ratios])]))
    return shown


def _value(found: Sensitivity, value: float) -> str:
    return f"{value:.1%}" if found.metric == "top1" else f"{value:.3g}"
