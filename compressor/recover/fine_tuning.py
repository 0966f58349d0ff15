"""Train a pruned network again, epoch by epoch, on any device and any number of processes."""

from __future__ import annotations

from collections.abc import Callable, Sized
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from compressor.errors import CompressorError
from compressor.metrics import HIGHER
from compressor.recover.descent import Descent, keep_random_state
from compressor.recover.evaluation import Batches, CountedBatches, Progress, to_eval
from compressor.recover.objective import Objective
from compressor.recover.recipe import Recipe
from compressor.recover.rehearsal import settle_form
from compressor.recover.training_state import EpochResult, TrainingState


@runtime_checkable
class Placeable(CountedBatches, Protocol):
    """Batches that can be made on a device, where their samples lie then."""

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
    counted: CountedBatches = batches if isinstance(batches, Sized) else list(batches)
    if not len(counted):
        raise CompressorError(
            "there is not one batch to fine-tune on", next_step="give data that is not empty"
        )
    device = torch.device(device)
    if device.type != "cpu" and isinstance(counted, Placeable):
        counted = counted.on(device)
    module.to(device)
    state.note_weights(module)
    with keep_random_state(device):
        objective = objective.place(counted, device)
    recipe, _ = settle_form(module, counted, recipe, objective, device)
    drops = not objective.imitates(counted)
    run = Descent(module, recipe, objective, device, len(counted))
    state.give_moments(module, run.optimizer)
    state.not_captured = run.why_not_captured if recipe.captured else ""
    try:
        with keep_random_state(device), torch.enable_grad():
            for epoch in range(state.epoch + 1, recipe.epochs + 1):
                torch.manual_seed(recipe.seed + epoch)
                _to_train(module, drops=drops)
                if objective.penalty is not None:
                    objective.penalty.begin_epoch()
                result = run.epoch(epoch, counted, state, hooks.progress)
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
