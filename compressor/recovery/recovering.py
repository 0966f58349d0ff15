"""Evaluate a network at each moment of a run, and repair it."""

from __future__ import annotations

from typing import Any

from torch import nn

from compressor import slicing
from compressor.data import Data, batches
from compressor.planning.deciding import Planned
from compressor.planning.preparing import Prepared
from compressor.planning.subject import metric_of
from compressor.recover import evaluate
from compressor.recovery.repairing import repair

Moments = list[dict[str, Any]]
"""The steps of a run, in words, each with the metrics after it."""


class Judge:
    """Measures the run's metric on some data; without data there is no metric."""

    def __init__(self, prepared: Prepared, data: Data | None) -> None:
        self.name, self.metric = metric_of(prepared.subject, prepared.options)
        self.data, self.options = data, prepared.options
        self.stopwatch = prepared.stopwatch

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


def repaired(
    sliced: slicing.Sliced, planned: Planned, judge: Judge, *, prefix: str = ""
) -> Moments:
    """Repair the sliced network in place, where that is wanted and there are data.

    Returns:
        The moment after the repair with its metrics, `prefix` before its name; empty if nothing
        was repaired.
    """
    if planned.samples.train is None or not planned.options.repair:
        return []
    step = repair(sliced, planned)
    if not step:
        return []
    return [{"step": prefix + step, "metrics": judge("evaluate repaired", sliced.module)}]
