"""Recovery of a sliced network, and what it is worth at each moment."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch import nn

from compressor import slicing
from compressor.data import Batches, Data, batches
from compressor.journal import Journal
from compressor.options import Options
from compressor.planning import Planned
from compressor.preparing import Prepared
from compressor.recover import (
    LEARNING_RATES,
    Objective,
    Recipe,
    TrainingState,
    estimated_seconds,
    evaluate,
    fine_tune,
)
from compressor.repairing import repair
from compressor.subject import loss_of, metric_of, step_of

Moments = list[dict[str, Any]]
"""Steps of a run, in words, each with the metrics after it."""


TRAINING = "training"
"""The journal's record of the last training."""


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

    def value(self, module: nn.Module) -> float:
        """The metric alone, of a network that stays where it is."""
        assert self.data is not None
        whole = batches(self.data, self.options.batch_size)
        return evaluate(module, whole, self.metric, self.options.device)


def recover(
    sliced: slicing.Sliced,
    planned: Planned,
    judge: Judge,
    *,
    repairs: bool,
    epochs: int,
    prefix: str = "",
    journal: Journal | None = None,
) -> Moments:
    """Repair, then fine-tuning, each with its metrics; `prefix` stands before the steps' names, and
    `journal` keeps what training has reached."""
    done: Moments = []
    if planned.samples.train is None:
        return done
    if repairs:
        step = repair(sliced, planned)
        if step:
            metrics = judge("evaluate repaired", sliced.module)
            done.append({"step": prefix + step, "metrics": metrics})
    if epochs:
        done += _trained(sliced.module, planned, judge, epochs, prefix, journal or Journal())
    return done


def _trained(
    module: nn.Module,
    planned: Planned,
    judge: Judge,
    epochs: int,
    prefix: str,
    journal: Journal,
) -> Moments:
    """Fine-tuning, with the metrics after its best epoch, if that was not the last, and after the
    last."""
    state = _fine_tune(module, planned, epochs, journal)
    done: Moments = []
    best = state.best_epoch
    if best is not None and best != state.epoch and judge.data is not None:
        module.load_state_dict(state.best, strict=False)
        metrics = judge("evaluate best epoch", module)
        done.append({"step": f"{prefix}epoch {best}, best on validation", "metrics": metrics})
        module.load_state_dict(state.weights, strict=False)
    metrics = judge("evaluate fine-tuned", module)
    words = "1 epoch" if epochs == 1 else f"{epochs} epochs"
    history = [asdict(result) for result in state.history]
    return [
        *done,
        {
            "step": f"{prefix}{words} of fine-tuning",
            "metrics": metrics,
            "training": {"epochs": history, "best_epoch": best},
        },
    ]


def recipe_of(options: Options, epochs: int) -> Recipe:
    """As the options say."""
    return Recipe(
        epochs,
        lr=options.lr or LEARNING_RATES[options.optimizer],
        optimizer=options.optimizer,
        weight_decay=options.weight_decay,
        accumulate=options.accumulate,
        precision=options.precision,
        seed=options.seed,
    )


def _fine_tune(module: nn.Module, planned: Planned, epochs: int, journal: Journal) -> TrainingState:
    train, options, stopwatch = planned.samples.train, planned.options, planned.stopwatch
    assert train is not None
    whole = batches(
        train, options.batch_size, seed=options.seed, augment=options.augment, drop_last=True
    )
    recipe = recipe_of(options, epochs)
    objective = Objective(
        loss=loss_of(planned.subject, options),
        step=step_of(options),
        teacher=planned.trace.module,
        distill=options.distill,
        label_smoothing=options.label_smoothing,
    )
    _say_how(planned, module, whole, recipe, objective)
    quiet, record = Judge(planned, planned.samples.validation), journal.kept(TRAINING)
    state = TrainingState() if record is None else TrainingState.from_dict(record)
    if state.epoch:
        stopwatch.note(f"training goes on after epoch {state.epoch}")
    with stopwatch.stage("fine-tune") as tick:
        state = fine_tune(
            module,
            whole,
            recipe,
            objective,
            device=options.device,
            validate=quiet.value if quiet.data is not None else None,
            state=state,
            after_epoch=lambda reached: journal.keep(TRAINING, reached.to_dict()),
            progress=tick,
        )
        last = state.history[-1]
        found = f", {quiet.name} {last.metric:.4f} on validation" if last.metric is not None else ""
        tick(1, 1, f"loss {last.loss:.4f} in the last epoch{found}")
    planned.trace.module.cpu()
    return state


def _say_how(
    planned: Planned, module: nn.Module, whole: Batches, recipe: Recipe, objective: Objective
) -> None:
    """The recipe, and how long it will take, before it starts."""
    with planned.stopwatch.stage("estimate training time") as tick:
        device = planned.options.device
        seconds = estimated_seconds(module, whole, recipe, objective, device)
        tick(1, 1, f"about {seconds / 60:.1f} min")
    train = planned.samples.train
    assert train is not None
    if objective.step is not None:
        learnt = "by the step of --train"
    elif objective.loss is None and not train.labelled:
        learnt = "on the original's outputs alone"
    else:
        learnt = f"on labels and with weight {objective.weight:g} on the original's outputs"
    planned.stopwatch.note(
        f"fine-tuning {learnt}: {recipe.optimizer}, learning rate {recipe.lr:g} falling by half a "
        f"cosine, {len(whole)} batches an epoch"
    )
