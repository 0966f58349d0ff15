"""Name what a run starts from, as it is given in Python: the model, data, loss and metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from compressor.loading.callables import function
from compressor.loading.data import Data
from compressor.options import ScoringOptions, TrainingOptions
from compressor.recover import FIDELITY, fidelity, top1


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


NamedMetric = tuple[str, Callable[[Any, Any], Any]]


def metric_of(subject: Subject, options: ScoringOptions, data: Data | None) -> NamedMetric:
    """Return the name and the callable of the run's metric on some data."""
    if subject.metric is not None:
        return getattr(subject.metric, "__name__", "metric"), subject.metric
    return metric_named(options.metric, data)


def metric_named(spec: str | None, data: Data | None) -> NamedMetric:
    """Return the name and the callable of the metric that a spec names.

    Where it names none, that is top-1 accuracy, or without labels the fidelity to the original.
    """
    has_no_labels = data is not None and not data.labelled
    if spec == FIDELITY or (spec is None and has_no_labels):
        return FIDELITY, fidelity
    return ("top1", top1) if spec is None else (spec.rpartition(":")[2], function(spec))


def loss_of(subject: Subject, options: ScoringOptions) -> Callable[[Any, Any], Tensor] | None:
    """Return the user's loss, or None for the default."""
    return subject.loss or (function(options.loss) if options.loss else None)


def step_of(options: TrainingOptions) -> Callable[..., Tensor] | None:
    """Return the user's own training step, or None."""
    return function(options.train) if options.train else None
