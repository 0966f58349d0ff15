"""Train a pruned network again, epoch by epoch, on any device and any number of processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import nn

from compressor.errors import CompressorError
from compressor.metrics import HIGHER
from compressor.modules import copy_of
from compressor.recover.descent import Descent, in_groups, keep_random_state
from compressor.recover.evaluation import Batches, Progress, to_eval
from compressor.recover.objective import Objective
from compressor.recover.recipe import Recipe
from compressor.recover.tally import Tally
from compressor.recover.training_state import EpochResult, TrainingState

if TYPE_CHECKING:
    pass


@runtime_checkable
class Placeable(Protocol):
    """Batches that can be made on a device, where their samples lie then."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[Any, Any]]: ...

    def on(self, device: torch.device) -> Placeable:
        """Return the same batches, made on the device."""


@dataclass(frozen=True)
class Hooks:
    """What is called while a network is trained.

    Attributes:
        validate: Returns the metric of the network after an epoch.
        better: Which way it is better.
        after_epoch: Is given the state after each epoch, to keep it.
        progress: Is told (done, total, what).
    """

    validate: Callable[[nn.Module], float] | None = None
    better: str = HIGHER
    after_epoch: Callable[[TrainingState], None] = lambda state: None
    progress: Progress | None = None


def fine_tune(
    module: nn.Module,
    batches: Batches,
    recipe: Recipe,
    objective: Objective | None = None,
    *,
    device: str | torch.device = "cpu",
    state: TrainingState | None = None,
    hooks: Hooks | None = None,
) -> TrainingState:
    """Train the module in place; it ends on `device` in eval mode, with the last epoch's weights.

    `batches` is iterated once per epoch. Parameters that require no gradient stay as they are.
    In a distributed run each process takes its share of every batch.

    Args:
        module: The network.
        batches: The training data, as batches of (inputs, target).
        recipe: How to train.
        objective: What is minimised; default cross-entropy on the labels.
        device: Where to train.
        state: Where this training stopped earlier: after some or all of its epochs.
        hooks: What is called after steps and epochs.

    Raises:
        CompressorError: There is nothing to learn from, the network or the loss fails, or the loss
            is not finite (with epoch and step; the module then has the weights after the last
            epoch that was whole).
    """
    objective, hooks = objective or Objective(), hooks or Hooks()
    state = state or TrainingState()
    state.better = hooks.better
    if state.weights:
        module.load_state_dict(state.weights, strict=False)
    if recipe.epochs <= state.epoch:
        return state
    batches = batches if isinstance(batches, Sized) else list(batches)
    if not len(batches):
        raise CompressorError(
            "there is not one batch to fine-tune on", next_step="give data that is not empty"
        )
    device = torch.device(device)
    if device.type != "cpu" and isinstance(batches, Placeable):
        batches = batches.on(device)
    module.to(device)
    state.note_weights(module)
    with keep_random_state(device):
        objective = _place_teacher(objective, batches, device)
    drops = not objective.imitates(batches)
    run = Descent(module, recipe, objective, device, len(batches))
    state.give_moments(module, run.optimizer)
    state.not_captured = run.why_not_captured if recipe.captured else ""
    try:
        with keep_random_state(device), torch.enable_grad():
            for epoch in range(state.epoch + 1, recipe.epochs + 1):
                torch.manual_seed(recipe.seed + epoch)
                _to_train(module, drops=drops)
                if objective.penalty is not None:
                    objective.penalty.begin_epoch()
                result = run.epoch(epoch, batches, state, hooks.progress)
                to_eval(module)
                metric = hooks.validate(module) if hooks.validate is not None else None
                _note(state, EpochResult(epoch, *result, metric), module, run.optimizer)
                hooks.after_epoch(state)
    except CompressorError:
        module.load_state_dict(state.weights, strict=False)
        raise
    finally:
        run.end()
        to_eval(module)
    return state


def _to_train(module: nn.Module, *, drops: bool) -> None:
    """Put a module into the mode for training.

    Args:
        module: The network.
        drops: Whether values and branches are dropped at random. Without that only layers which
            keep running statistics, and recurrent ones (whose GPU kernels ask for it), are in
            training mode.
    """
    module.train()
    if not drops:
        for each in module.modules():
            has_statistics = getattr(each, "running_mean", None) is not None
            each.training = has_statistics or isinstance(each, nn.RNNBase)


def _place_teacher(objective: Objective, batches: Batches, device: torch.device) -> Objective:
    """Move the teacher to the device; return the objective with what it needs to know of it."""
    if objective.teacher is not None:
        to_eval(objective.teacher.to(device))
    return objective.measure(batches, device)


def _note(
    state: TrainingState,
    result: EpochResult,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> None:
    state.epoch = result.epoch
    state.history.append(result)
    state.note_weights(module)
    state.note_moments(module, optimizer)
    if state.best_epoch == result.epoch:
        state.best = dict(state.weights)


def estimate_seconds(
    module: nn.Module, batches: Any, recipe: Recipe, objective: Objective, device: str
) -> float:
    """Estimate how long the training will take, by two steps of a copy after one that warms up."""
    trial, place = copy_of(module).to(device).train(), torch.device(device)
    recipe = replace(recipe, compiled=False, captured=False)
    with keep_random_state(place):
        objective = _place_teacher(objective, batches, place)
    # a penalty is on the network's own weights, not on the copy's
    objective = replace(objective, penalty=None)
    run = Descent(trial, recipe, objective, place, len(batches))
    try:
        with keep_random_state(place), torch.enable_grad():
            seconds = []
            for (batch,) in islice(in_groups(batches, 1), 3):
                begin = time.perf_counter()
                tally = Tally(0, recipe.lr, waits=True)
                tally.add(*run.step([batch], TrainingState()))
                seconds.append(time.perf_counter() - begin)
    finally:
        run.end()
    timed = seconds[1:] or seconds
    return sum(timed) / len(timed) * len(batches) * recipe.epochs
