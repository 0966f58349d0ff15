"""Name what a run starts from, as it is given in Python: the model, data, loss and metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from compressor.loading.callables import function
from compressor.loading.data import Data
from compressor.options import ScoringOptions, TrainingOptions
from compressor.recover import COUNTS, USUAL, Measure, Task


@dataclass(frozen=True)
class Subject:
    """The objects that a run starts from; what is plain data is in `Options` instead.

    Attributes:
        model: A module, or a MODEL spec.
        example_inputs: As `compressor.compress` takes them.
        data: The training dataset; None if the options name it.
        test: The test dataset; None if the options name it.
        loss: Callable of (outputs, target); None if the options name it.
        metric: Callable of (outputs, target); None if the options name it.
    """

    model: nn.Module | str
    example_inputs: Any = None
    data: Any = None
    test: Any = None
    loss: Callable[[Any, Any], Tensor] | None = None
    metric: Callable[[Any, Any], Any] | None = None


def measure_of(subject: Subject, options: ScoringOptions, data: Data | None) -> Measure:
    """Return what the run's networks are judged by on some data."""
    if subject.metric is not None:
        name = getattr(subject.metric, "__name__", "metric")
        return Measure.of_function(name, subject.metric)
    return measure_named(options.metric, data)


def measure_named(spec: str | None, data: Data | None) -> Measure:
    """Return the measure that a spec names.

    Where it names none, that is the one of the network's task, which is another without labels:
    top-1 accuracy and the fidelity to the original where nothing tells the task.
    """
    task: Task = USUAL if data is None else data.task
    is_labelled = data is None or data.labelled
    name = spec or (task.metric if is_labelled else task.unlabelled)
    if name in COUNTS:
        return Measure.named(name, task)
    return Measure.of_function(name.rpartition(":")[2], function(name))


def loss_of(subject: Subject, options: ScoringOptions) -> Callable[[Any, Any], Tensor] | None:
    """Return the user's loss, or None for the default."""
    return subject.loss or (function(options.loss) if options.loss else None)


def step_of(options: TrainingOptions) -> Callable[..., Tensor] | None:
    """Return the user's own training step, or None."""
    return function(options.train) if options.train else None
