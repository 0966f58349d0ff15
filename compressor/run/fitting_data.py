"""Check before anything long that the samples fit the network, and the loss and metric both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from compressor.errors import CompressorError, UsageError
from compressor.loading.data import Data, check_labels
from compressor.options import Options, ScoringOptions
from compressor.recover import Measure, primary_output, why_not
from compressor.run.samples import Samples
from compressor.run.subject import Subject, measure_of
from compressor.score import needs_loss


@dataclass(frozen=True)
class _Default:
    """A default loss or metric, which can only judge classes, with words for messages about it."""

    words: str
    option: str


_METRIC = _Default("the default metric", "--metric")
_LOSS = _Default("cross-entropy, the default loss,", "--loss")


def check_fit(
    module: nn.Module, samples: Samples, subject: Subject, options: ScoringOptions
) -> None:
    """Run one batch, and check that the default loss and metric, where used, can judge its outputs.

    This is done before anything long.

    Raises:
        CompressorError: The samples do not fit the network, labels lie out of range, or the metric
            that is asked for fails.
        UsageError: The default loss or metric cannot judge such outputs or targets.
    """
    metric = None if subject.metric or options.metric else _METRIC
    loss = None if subject.loss or options.loss or not _uses_loss(options) else _LOSS
    uses = [
        (samples.test, metric),
        (samples.validation, metric),
        (samples.train, loss),
    ]
    for data, default in uses:
        if data is None:
            continue
        batch = data.fetch(data.alike(min(2, len(data))))
        try:
            with torch.no_grad():
                outputs = batch.inputs.to(module)
        except Exception as error:  # whatever the model's code raises
            raise CompressorError(
                f"the samples do not fit the network: {' '.join(str(error).split())[:300]}",
                where=f"{data.name}, two samples: {batch.inputs.shapes}",
                consequence="nothing was done",
                next_step="give the data that the network was trained for",
            ) from None
        if data.labelled and default is not None:
            _check_classes(default, outputs, batch.target, data)
            check_labels(data, primary_output(outputs).shape[data.task.classes or 1])
        if metric is None and data in (samples.test, samples.validation):
            _try_metric(measure_of(subject, options, data), batch, outputs, data)


def _try_metric(measure: Measure, batch: Any, outputs: Any, data: Data) -> None:
    """Judge two samples; what is judged beside the original's outputs always has these."""
    if measure.is_beside_original:
        return
    try:
        measure.begin().add(batch.inputs, outputs, batch.target)
    except CompressorError as error:
        unlabelled = "" if data.labelled else ", which have no labels"
        raise CompressorError(
            error.what,
            where=f"--metric {measure.name}, two samples of {data.name}{unlabelled}",
            consequence="nothing was done",
            next_step=error.next_step,
        ) from error


def _uses_loss(options: ScoringOptions) -> bool:
    """Return whether anything needs the loss on labels."""
    trains = isinstance(options, Options) and options.trains and options.train is None
    return trains or needs_loss(options.criterion)


def _check_classes(default: _Default, outputs: Any, target: Any, data: Data) -> None:
    why = why_not(data.task, outputs, target)
    if why:
        raise UsageError(
            f"{default.words} cannot judge this: {why}",
            where=data.name,
            consequence="nothing was done",
            next_step=f"name your own, {default.option} own.py:function, called with (outputs, "
            "target); or give the data without targets",
        )


def check_device(device: str) -> None:
    """Check that a device is available.

    Raises:
        UsageError: It is not.
    """
    try:
        torch.empty(1, device=device)
    except Exception as error:  # torch raises RuntimeError, AssertionError and others
        raise UsageError(
            f"the device {device!r} is not available: {str(error).strip().splitlines()[0]}",
            where="--device",
            consequence="nothing was done",
            next_step="--device cpu works everywhere",
        ) from None
