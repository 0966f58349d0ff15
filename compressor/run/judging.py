"""Evaluate a network at each moment of a run, and repair it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from compressor.loading.data import Data, batches
from compressor.recover import evaluate
from compressor.run.decide import Cut
from compressor.run.opened import Run
from compressor.run.repairing import repair
from compressor.run.subject import metric_of


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
        self.name, self.metric = metric_of(run.subject, run.options)
        self.data, self.options = data, run.options
        self.stopwatch = run.stopwatch

    def __call__(self, stage: str, module: nn.Module) -> dict[str, float]:
        if self.data is None:
            return {}
        with self.stopwatch.stage(stage) as tick:
            whole = batches(self.data, self.options.batch_size)
            value = evaluate(module, whole, self.metric, self.options.device, tick)
            tick(len(whole), len(whole), f"{self.name} {value:.4f}")
        module.cpu()
        return {self.name: value}

    def value(self, module: nn.Module) -> float:
        """Return the metric alone, of a network that stays on its device."""
        assert self.data is not None
        whole = batches(self.data, self.options.batch_size)
        return evaluate(module, whole, self.metric, self.options.device)


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
