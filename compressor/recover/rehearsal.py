"""Take steps of a copy before a training: to settle how they compute, and how long they take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import nn

from compressor.causes import first_line
from compressor.modules import copy_of
from compressor.recover.descent import Descent, in_groups, keep_random_state
from compressor.recover.evaluation import CountedBatches
from compressor.recover.objective import Objective
from compressor.recover.recipe import Recipe
from compressor.recover.tally import Tally
from compressor.recover.training_state import TrainingState


@dataclass(frozen=True)
class Rehearsal:
    """What a few steps of a copy have shown.

    Attributes:
        recipe: The recipe with a fixed precision and memory format.
        why: Why it is not of the fastest form; "" where it is.
        seconds: How long the training will take, estimated.
    """

    recipe: Recipe
    why: str
    seconds: float


def rehearse(
    module: nn.Module,
    batches: CountedBatches,
    recipe: Recipe,
    objective: Objective,
    device: str | torch.device,
) -> Rehearsal:
    """Settle how steps compute as `settle_form` does, and estimate how long all of them take."""
    device = torch.device(device)
    with keep_random_state(device):
        objective = objective.place(batches, device)
    settled, why = settle_form(module, batches, recipe, objective, device)
    return Rehearsal(settled, why, _estimate_seconds(module, batches, settled, objective, device))


def settle_form(
    module: nn.Module,
    batches: CountedBatches,
    recipe: Recipe,
    objective: Objective,
    device: torch.device,
) -> tuple[Recipe, str]:
    """Return a recipe whose precision and memory format are fixed.

    What the recipe leaves open becomes the fastest form in which a step of a copy does not fail:
    an operator may have no kernel for bfloat16, and `view` refuses images that lie channels last.

    Args:
        module: The network; not changed.
        batches: The training data, of which the first batch is taken.
        recipe: How the network is to be trained.
        objective: What is minimised; its teacher is on the device.
        device: Where it is trained.

    Returns:
        The recipe, and why it is not of the fastest form ("" where it is). Where no form works it
        is of the plainest one: the training itself says then what is wrong.
    """
    *faster, plainest = dict.fromkeys(_forms(recipe, device))
    why = ""
    for form in faster:
        try:
            _take_steps(module, batches, form, objective, device, count=1)
        except Exception as error:  # whatever kernels or the user's code say of this form
            why = why or f"a step in {form.form} failed ({first_line(error.__cause__ or error)})"
        else:
            return form, why
    return plainest, why


def _forms(recipe: Recipe, device: torch.device) -> Iterator[Recipe]:
    """Yield the recipe with all that it leaves open fixed in each way, the fastest first."""
    precision = "bf16" if recipe.uses_bf16(device) else "fp32"
    fast = replace(recipe, precision=precision, channels_last=recipe.is_channels_last(device))
    plain = replace(fast, channels_last=bool(recipe.channels_last))
    yield fast
    yield plain
    yield replace(plain, precision="fp32") if recipe.precision == "auto" else plain


def _estimate_seconds(
    module: nn.Module,
    batches: CountedBatches,
    recipe: Recipe,
    objective: Objective,
    device: torch.device,
) -> float:
    """Estimate how long a training takes, by two steps of a copy after one that warms up."""
    seconds = _take_steps(module, batches, recipe, objective, device, count=3)
    timed = seconds[1:] or seconds
    return sum(timed) / len(timed) * len(batches) * recipe.epochs


def _take_steps(
    module: nn.Module,
    batches: CountedBatches,
    recipe: Recipe,
    objective: Objective,
    device: torch.device,
    *,
    count: int,
) -> list[float]:
    """Train a copy for at most this many steps of a batch; return the seconds of each."""
    trial = copy_of(module).to(device).train()
    recipe = replace(recipe, compiled=False, captured=False)
    # a penalty is on the network's own weights, not on the copy's
    objective = replace(objective, penalty=None)
    run = Descent(trial, recipe, objective, device, len(batches))
    seconds: list[float] = []
    try:
        with keep_random_state(device), torch.enable_grad():
            for (batch,) in islice(in_groups(batches, 1), count):
                begin = time.perf_counter()
                tally = Tally(0, recipe.lr, waits=True)
                tally.add(*run.step([batch], TrainingState()))
                seconds.append(time.perf_counter() - begin)
    finally:
        run.end()
    return seconds
