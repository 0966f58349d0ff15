"""Compute what training makes small: a loss on labels, the distance from the original, or both."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from compressor.calls import Call
from compressor.errors import CompressorError
from compressor.padding import counted_of, counted_targets
from compressor.recover.distance import Distance
from compressor.recover.evaluation import IGNORED, Batches, call, to_eval
from compressor.recover.tasks import USUAL, Task, cross_entropy

Loss = Callable[[Any, Any], Tensor]
Step = Callable[..., Tensor]
"""A training step: `step(model, inputs, target)` returns the loss. It is given `teacher` too if
it has a parameter of that name. `inputs` is a tuple, or a dict where the network takes them by
name."""

DISTILL = 0.5
"""Weight of distillation beside cross-entropy on labels."""


class Penalty(Protocol):
    """A term that is minimised beside the objective and depends on the weights alone."""

    def begin_epoch(self) -> None:
        """Prepare for an epoch that begins."""

    def __call__(self) -> Tensor:
        """Return the penalty of the present weights, a scalar."""


@dataclass(frozen=True)
class Objective:
    """The scalar to minimise for one batch.

    Attributes:
        loss: Callable of (outputs, target); default cross-entropy, where there are labels.
        step: The user's own training step; it replaces all else.
        teacher: The original, in eval mode on the device of the training.
        distill: Weight of the teacher's outputs beside the labels, from 0 to 1 (Hinton et al.
            2015); None: `DISTILL` beside cross-entropy, none beside a loss of one's own. Without
            labels and without a loss it has all the weight.
        label_smoothing: Label smoothing of cross-entropy (Szegedy et al. 2016, section 7).
        penalty: A term of the weights alone, which the training adds once per step.
        distance: How far outputs are from the teacher's; None: without their variances.
        task: What the first output is for, which says how labels belong to it.
    """

    loss: Loss | None = None
    step: Step | None = None
    teacher: nn.Module | None = None
    distill: float | None = None
    label_smoothing: float = 0.0
    penalty: Penalty | None = None
    distance: Distance | None = None
    task: Task = USUAL

    @property
    def weight(self) -> float:
        """Return the weight of distillation, where there are labels."""
        if self.teacher is None or self.step is not None:
            return 0.0
        return (DISTILL if self.loss is None else 0.0) if self.distill is None else self.distill

    def imitates(self, batches: Batches) -> bool:
        """Return whether the teacher's outputs are all that these batches give to learn from."""
        if self.teacher is None or self.loss is not None or self.step is not None:
            return False
        return all(target is None for _, target in islice(batches, 1))

    def place(self, batches: Batches, device: torch.device) -> Objective:
        """Move the teacher to the device; return the objective with what it needs to know of it."""
        if self.teacher is not None:
            to_eval(self.teacher.to(device))
        return self.measure(batches, device)

    def measure(self, batches: Batches, device: torch.device) -> Objective:
        """Return the objective with the variances of the teacher's outputs, where it needs any."""
        is_alone = self.loss is not None and not self.weight
        if self.teacher is None or self.step is not None or is_alone or self.distance is not None:
            return self
        return replace(self, distance=Distance.of(self.teacher, batches, device))

    def __call__(self, module: nn.Module, inputs: Any, target: Any) -> Tensor:
        """Compute the scalar to minimise for one batch.

        Args:
            module: The network that is trained.
            inputs: A call, or positional inputs alone.
            target: The batch's labels, or None.

        Raises:
            CompressorError: The network fails on the batch, the loss or the user's step raises or
                gives no scalar, or there is nothing to learn from.
        """
        inputs = Call.of(inputs)
        if self.step is not None:
            return self._of_step(self.step, module, inputs, target)
        outputs = call(module, inputs)
        if self.loss is None and target is None:
            return self._distance(outputs, inputs, None)
        if self.loss is None:
            target = counted_targets(target, counted_of(inputs), IGNORED)
        value = self._of_labels(outputs, target)
        if self.weight:
            distance = self._distance(outputs, inputs, target)
            value = (1 - self.weight) * value + self.weight * distance
        return value

    def _of_step(self, step: Step, module: nn.Module, inputs: Call, target: Any) -> Tensor:
        teacher = {"teacher": self.teacher} if _takes_teacher(step) else {}
        try:
            return _check(step(module, inputs.plain, target, **teacher))
        except Exception as error:  # the step is the user's code
            raise CompressorError(
                f"the training step failed: {type(error).__name__}: {error}",
                where=getattr(step, "__name__", str(step)),
                next_step="a step takes (model, inputs, target) and returns a scalar loss",
            ) from error

    def _of_labels(self, outputs: Any, target: Any) -> Tensor:
        try:
            if self.loss is not None:
                return _check(self.loss(outputs, target))
            return cross_entropy(outputs, target, self.task, self.label_smoothing)
        except CompressorError:
            raise
        except Exception as error:  # the loss is the user's code
            name = "cross-entropy" if self.loss is None else str(self.loss)
            raise CompressorError(
                f"the loss failed: {type(error).__name__}: {error}",
                where=getattr(self.loss, "__name__", name),
                next_step="check that the labels fit the outputs, or give a --loss for these "
                "targets",
            ) from error

    def _distance(self, outputs: Any, inputs: Call, target: Any) -> Tensor:
        if self.teacher is None:
            raise CompressorError(
                "the data has no labels and there is no original to learn from",
                consequence="the network was not fine-tuned",
                next_step="give labelled data, a teacher or a loss",
            )
        with torch.no_grad():
            wanted = call(self.teacher, inputs)
        # a loss of one's own may take a number per sample for anything but a class
        is_class = self.loss is None or (isinstance(target, Tensor) and target.ndim > 1)
        distance = self.distance or Distance()
        classes = target if is_class else None
        return distance(outputs, wanted, classes, counted_of(inputs), self.task.classes)


def _takes_teacher(step: Step) -> bool:
    try:
        return "teacher" in inspect.signature(step).parameters
    except (TypeError, ValueError):
        return False


def _check(value: Any) -> Tensor:
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
        raise TypeError("a loss is a scalar tensor computed from the outputs")
    return value
