"""Train a pruned network again: on labels, on the original's outputs, or on a loss of one's own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sized
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.errors import CompressorError, UsageError
from compressor.recover.evaluation import (
    Batches,
    Progress,
    call,
    primary_output,
    to_eval,
    watched,
)

Loss = Callable[[Any, Any], Tensor]

_TEMPERATURE = 4.0  # of distillation, as in Hinton et al. 2015
_WARM_UP = 0.05  # share of the steps during which the learning rate rises
_CLIP = 5.0  # largest norm of all gradients together


@dataclass(frozen=True)
class EpochResult:
    """One pass over the training data: mean loss per sample and last learning rate."""

    epoch: int
    loss: float
    lr: float
    seconds: float


def fine_tune(
    module: nn.Module,
    batches: Batches,
    *,
    epochs: int,
    loss: Loss | None = None,
    teacher: nn.Module | None = None,
    lr: float = 0.01,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
    seed: int = 0,
) -> list[EpochResult]:
    """Train with SGD (Nesterov momentum 0.9, weight decay 5e-4), a short warm-up, then cosine.

    `batches` is iterated once per epoch. The default loss is cross-entropy on the labels; where
    there are none, distillation from the teacher: Kullback-Leibler divergence of softened class
    scores (outputs of shape (samples, classes)), mean squared error for any other output. If no
    parameter requires a gradient, all do from here on. The module ends on `device` in eval mode.

    Args:
        loss: `loss(outputs, target)`, a scalar tensor; replaces both.
        seed: Of dropout and its like; the global random state is left as it was.

    Raises:
        CompressorError: neither labels nor teacher, a loss that is not finite (with epoch and
            step), or a network that fails on a batch.
    """
    if epochs < 0 or not lr > 0:
        raise UsageError(f"Fine-tuning for {epochs} epochs at a learning rate of {lr}: impossible.")
    if epochs == 0:
        return []
    batches = batches if isinstance(batches, Sized) else list(batches)
    if not len(batches):
        raise CompressorError("There is not one batch to fine-tune on.")
    module.to(device)
    if teacher is not None:
        to_eval(teacher.to(device))
    descent = _Descent(module, lr, epochs * len(batches))
    results = []
    cuda = range(torch.cuda.device_count()) if torch.device(device).type == "cuda" else ()
    try:
        module.train()
        with torch.random.fork_rng(cuda), torch.enable_grad():
            torch.manual_seed(seed)
            for epoch in range(1, epochs + 1):
                start, total, samples = time.perf_counter(), 0.0, 0
                seen = watched(batches, device, progress, f"epoch {epoch} of {epochs}")
                for step, (inputs, target) in enumerate(seen, start=1):
                    value = _loss(loss, teacher, call(module, inputs), inputs, target)
                    loss_value = descent.step(value, where=f"epoch {epoch}, step {step}")
                    total += loss_value * len(inputs[0])
                    samples += len(inputs[0])
                seconds = time.perf_counter() - start
                results.append(EpochResult(epoch, total / samples, descent.lr, seconds))
    finally:
        to_eval(module)
    return results


class _Descent:
    """The optimiser, its schedule, and the stop when numbers are no longer finite."""

    def __init__(self, module: nn.Module, lr: float, steps: int) -> None:
        self.parameters = _trainable(module)
        self.peak_lr = self.lr = lr
        matrices = [p for p in self.parameters if p.ndim > 1]
        vectors = [p for p in self.parameters if p.ndim <= 1]  # biases and norms
        self.optimizer = torch.optim.SGD(
            [
                {"params": matrices, "weight_decay": 5e-4},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=lr,
            momentum=0.9,
            nesterov=True,
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, _cosine(steps))

    def step(self, loss: Tensor, *, where: str) -> float:
        """Descend once and return the loss."""
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        gradient = nn.utils.clip_grad_norm_(self.parameters, _CLIP)
        for name, value in (("loss", loss.item()), ("gradient", gradient.item())):
            if not math.isfinite(value):
                raise CompressorError(
                    f"The {name} became {value}.",
                    where=where,
                    consequence="Fine-tuning stopped; the network is not usable.",
                    next_step=f"Use a learning rate below {self.peak_lr:g}, "
                    "and check the data for NaN.",
                )
        self.lr = float(self.schedule.get_last_lr()[0])
        self.optimizer.step()
        self.schedule.step()
        return loss.item()


def _trainable(module: nn.Module) -> list[nn.Parameter]:
    parameters = [p for p in module.parameters() if p.is_floating_point()]
    if not any(p.requires_grad for p in parameters):
        for parameter in parameters:
            parameter.requires_grad_(True)
    trainable = [p for p in parameters if p.requires_grad]
    if not trainable:
        raise CompressorError("The network has no parameter that could be trained.")
    return trainable


def _cosine(steps: int) -> Callable[[int], float]:
    """Factor of the learning rate at a step: a short linear rise, then half a cosine to zero."""
    rise = max(1, round(_WARM_UP * steps))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))

    return factor


def _loss(
    loss: Loss | None, teacher: nn.Module | None, outputs: Any, inputs: tuple[Any, ...], target: Any
) -> Tensor:
    """The scalar to minimise for one batch."""
    try:
        if loss is not None:
            value = loss(outputs, target)
            if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
                raise TypeError("a loss is a scalar tensor computed from the outputs")
            return value
        if target is not None:
            return F.cross_entropy(primary_output(outputs), target)
    except CompressorError:
        raise
    except Exception as error:  # the loss is the user's code
        raise CompressorError(
            f"The loss failed: {type(error).__name__}: {error}",
            where=getattr(loss, "__name__", "cross-entropy" if loss is None else str(loss)),
            next_step="Check that the labels fit the outputs, or give a --loss for these targets.",
        ) from error
    if teacher is None:
        raise CompressorError(
            "The data has no labels and there is no original to learn from.",
            consequence="The network was not fine-tuned.",
            next_step="Give labelled data, a teacher or a loss.",
        )
    with torch.no_grad():
        wanted = call(teacher, inputs)
    return distillation(outputs, wanted)


def distillation(outputs: Any, wanted: Any) -> Tensor:
    """How far the outputs are from the teacher's, summed over all tensors of floating point."""
    total = torch.zeros(())
    for ours, theirs in zip(pytree.tree_leaves(outputs), pytree.tree_leaves(wanted), strict=False):
        if not isinstance(ours, Tensor) or not ours.is_floating_point():
            continue
        if ours.ndim == 2 and ours.shape[1] > 1:
            soft, aim = (F.log_softmax(scores / _TEMPERATURE, 1) for scores in (ours, theirs))
            divergence = F.kl_div(soft, aim, reduction="batchmean", log_target=True)
            total = total.to(ours) + divergence * _TEMPERATURE**2
        else:
            total = total.to(ours) + F.mse_loss(ours, theirs)
    return total
