"""Evaluate a network at each moment of a run, and repair it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from compressor.errors import CompressorError
from compressor.graph.programs.containers import names_of_outputs
from compressor.least_squares import Memory, samples_to_compare
from compressor.loading.data import Data, batches
from compressor.recover import measure_nearness
from compressor.run.decide import Cut
from compressor.run.opened import Run
from compressor.run.repairing import repair
from compressor.run.subject import measure_of
from compressor.slicing import Sliced
from compressor.watch import Tick


@dataclass(frozen=True)
class Moment:
    """A step of a run, and what the network is worth after it.

    Attributes:
        step: The step in words.
        metrics: The metric's name -> its value on the test data; empty without such data.
        training: The epochs of a training (`epochs`) and its best one (`best_epoch`).
        is_cut: Whether the network became smaller in this step.
    """

    step: str
    metrics: Mapping[str, float]
    training: Mapping[str, Any] | None = None
    is_cut: bool = False

    def to_report(self) -> dict[str, Any]:
        """Return the report's row of the step."""
        row = {"step": self.step, "metrics": self.metrics}
        return row if self.training is None else {**row, "training": self.training}


class Judge:
    """Measures the run's metric on some data; without data there is no metric."""

    def __init__(self, run: Run, data: Data | None) -> None:
        self.measure = measure_of(run.subject, run.options, data)
        self.data, self.options, self.original = data, run.options, run.original.module
        self.stopwatch = run.stopwatch
        self.batch_size = _at_once(run)

    @property
    def name(self) -> str:
        """Return the name of the metric that decides."""
        return self.measure.name

    def __call__(self, stage: str, module: nn.Module) -> dict[str, float]:
        """Return all that is measured of a network, that which decides first."""
        if self.data is None:
            return {}
        with self.stopwatch.stage(stage) as tick:
            values = self._evaluate(module, tick)
            tick(1, 1, ", ".join(f"{name} {value:.4f}" for name, value in values.items()))
        for each in (module, self.original):
            each.cpu()
        return values

    def value(self, module: nn.Module) -> float:
        """Return the metric that decides, of a network that stays on its device."""
        return self._evaluate(module)[self.name]

    def _evaluate(self, module: nn.Module, tick: Tick | None = None) -> dict[str, float]:
        assert self.data is not None
        whole = batches(self.data, self.batch_size)
        device = self.options.device
        return self.measure.all_of(module, whole, device, original=self.original, progress=tick)


def _at_once(run: Run) -> int:
    """Return the samples of a batch: fewer than the options say where outputs take much memory."""
    memory = Memory.of(run.options.memory_bytes)
    return min(run.options.batch_size, samples_to_compare(run.trace.program, memory.walks))


NEARNESS_SAMPLES = 1024
"""How many samples the final outputs are compared with the original's on, at most."""


def compare_outputs(run: Run, sliced: Sliced) -> dict[str, Any] | None:
    """Measure how near the smaller network's outputs are to the original's, on the test data.

    Returns:
        The report's entry; None where there are no test data, or outputs cannot be compared, which
        is noted.
    """
    data, options = run.samples.test, run.options
    if data is None:
        return None
    some = batches(data, _at_once(run), seed=options.seed, limit=NEARNESS_SAMPLES)
    networks = sliced.module, run.original.module
    try:
        with run.stopwatch.stage("compare with the original") as tick:
            nearness = measure_nearness(
                *(networks[0], some, networks[1], options.device, tick), classes=data.task.classes
            )
    except CompressorError as error:
        run.stopwatch.note(f"{error.what}: fidelity is not measured")
        return None
    finally:
        for each in networks:
            each.cpu()
    names = dict(enumerate(names_of_outputs(sliced.program)))  # a class may return more
    rows = [
        {**asdict(each), "output": names.get(each.output, f"output {each.output}")}
        for each in nearness
    ]
    return {"samples": min(len(data), NEARNESS_SAMPLES), "outputs": rows}


def repair_and_judge(run: Run, made: Cut, judge: Judge, *, prefix: str = "") -> list[Moment]:
    """Repair the sliced network in place, where that is wanted and there are data.

    Returns:
        The moment after the repair with its metrics, `prefix` before its name; empty if nothing
        was repaired.
    """
    if run.samples.train is None or not run.options.repair:
        return []
    step = repair(run, made)
    if not step:
        return []
    return [Moment(prefix + step, judge("evaluate repaired", made.sliced.module))]
