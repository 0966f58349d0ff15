"""Recovery of a sliced network, and what it is worth at each moment."""

from __future__ import annotations

from typing import Any

from torch import nn

from compressor import slicing
from compressor.data import Data, batches
from compressor.planning import Planned
from compressor.preparing import Prepared
from compressor.recover import evaluate, fine_tune
from compressor.repairing import repair
from compressor.subject import loss_of, metric_of
from compressor.watch import Tick

Moments = list[dict[str, Any]]
"""Steps of a run, in words, each with the metrics after it."""


class Judge:
    """Measures the metric on some data; without data there is none."""

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


def recover(
    sliced: slicing.Sliced,
    planned: Planned,
    judge: Judge,
    *,
    repairs: bool,
    epochs: int,
    prefix: str = "",
) -> Moments:
    """Repair, then fine-tuning, each with its metrics; `prefix` stands before the steps' names."""
    done: Moments = []
    if planned.samples.train is None:
        return done
    if repairs:
        step = repair(sliced, planned)
        if step:
            metrics = judge("evaluate repaired", sliced.module)
            done.append({"step": prefix + step, "metrics": metrics})
    if epochs:
        with planned.stopwatch.stage("fine-tune") as tick:
            _fine_tune(sliced.module, planned, epochs, tick)
        metrics = judge("evaluate fine-tuned", sliced.module)
        words = "1 epoch" if epochs == 1 else f"{epochs} epochs"
        done.append({"step": f"{prefix}{words} of fine-tuning", "metrics": metrics})
    return done


def _fine_tune(module: nn.Module, planned: Planned, epochs: int, tick: Tick) -> None:
    train, options = planned.samples.train, planned.options
    assert train is not None
    results = fine_tune(
        module,
        batches(
            train,
            options.batch_size,
            seed=options.seed,
            augment=options.augment,
            drop_last=True,
        ),
        epochs=epochs,
        loss=loss_of(planned.subject, options),
        teacher=None if train.labelled else planned.trace.module,
        lr=options.lr,
        device=options.device,
        progress=tick,
        seed=options.seed,
    )
    planned.trace.module.cpu()
    tick(1, 1, f"loss {results[-1].loss:.4f} in the last epoch")
