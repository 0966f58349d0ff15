"""Measure how far a network's outputs are from the original's, as its training makes it small."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.errors import CompressorError
from compressor.padding import blank_padding, counted_of, counted_share
from compressor.recover.evaluation import (
    Batches,
    call,
    real_outputs,
    to_eval,
    watch_batches,
    why_no_classes,
)
from compressor.recover.spread import Spread

TEMPERATURE = 4.0
"""Temperature of distillation (Hinton et al. 2015)."""

SHARE_WEIGHT = 10.0
"""What a squared error is multiplied by as a share of the variance, so that one learning rate fits
it, divergences and labels (ResNet-20: docs/results/decisions.md)."""

SAMPLES = 64
"""From at least how many samples the variances of outputs are estimated."""


@dataclass(frozen=True)
class Distance:
    """The distance of a network's outputs from the original's, the mean over all real tensors.

    Where labels number the classes that an output scores, it is the Kullback-Leibler divergence of
    the two, softened by the temperature. Of any other output (embeddings, maps, sequences, boxes,
    scores without labels) it is the mean squared difference as a share of the original's variance,
    times `SHARE_WEIGHT`: 10 for what always returns the mean, whatever the scale.

    Attributes:
        variances: The original's variance over samples, by the output's place among all that is
            returned; 1 where none is known.
    """

    variances: Mapping[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, original: nn.Module, batches: Batches, device: torch.device) -> Distance:
        """Estimate the variances of the original's outputs on the first samples of some batches.

        The original is moved to the device and left there, in eval mode.
        """
        to_eval(original.to(device))
        spreads: dict[int, Spread] = {}
        seen = 0
        if hasattr(batches, "passes"):
            batches.passes = 0  # the same samples, wherever a training goes on
        with torch.no_grad():
            for inputs, _ in watch_batches(batches, device, None, ""):
                for place, output in real_outputs(call(original, inputs)).items():
                    spreads.setdefault(place, Spread()).add(output, counted_of(inputs))
                seen += inputs.samples
                if seen >= SAMPLES:
                    break
        return cls({place: spread.variance for place, spread in spreads.items()})

    def __call__(
        self,
        outputs: Any,
        wanted: Any,
        classes: Any = None,
        counted: Tensor | None = None,
        dimension: int | None = None,
    ) -> Tensor:
        """Compute the distance, a scalar.

        Args:
            outputs: What the network returns for a batch.
            wanted: What the original returns.
            classes: Labels that number the classes which the first output scores; None where
                nothing says that it scores any.
            counted: Which positions are no padding, [samples, positions], if any may be.
            dimension: That of the classes, where it is known; None: as the labels' shape says.

        Raises:
            CompressorError: Nothing that both return can be compared.
        """
        own, aims = real_outputs(outputs), real_outputs(wanted)
        first = next(iter(own), None)
        distances = []
        for place in sorted(own.keys() & aims.keys()):  # training may give further outputs
            ours, theirs = own[place].float(), aims[place].float()
            _check_shapes(ours, theirs)
            part = counted_share(ours, counted)
            ours, theirs = (blank_padding(each, counted) for each in (ours, theirs))
            dim = None
            if place == first and classes is not None:
                dim = dimension or class_dimension(ours, classes)
            with _in_full(ours):
                if dim is not None:
                    distance = divergence(ours, theirs, dim)
                else:
                    variance = self.variances.get(place, 1.0)
                    distance = SHARE_WEIGHT * F.mse_loss(ours, theirs) / variance
            distances.append(distance / part)
        if not distances:
            raise _incomparable("no real tensor is returned by both")
        return torch.stack(distances).mean()


def class_dimension(scores: Tensor, target: Any) -> int | None:
    """Return the dimension of the classes that a target numbers; None where it numbers none.

    Scores are [samples, classes, *positions], as of images, or [samples, *positions, classes], as
    of tokens; targets are the numbers of classes, [samples, *positions].
    """
    dims = (1, -1) if scores.ndim > 1 else ()
    fits = (dim for dim in dims if not why_no_classes(scores.movedim(dim, 1), target))
    return next(fits, None)


def divergence(ours: Tensor, theirs: Tensor, classes: int) -> Tensor:
    """Compute the Kullback-Leibler divergence of softened scores, a mean over all but the classes.

    Args:
        ours: The scores that learn.
        theirs: Those that are learnt from, of the same shape.
        classes: The dimension of the classes.
    """
    soft, aim = (
        F.log_softmax(scores.movedim(classes, -1).flatten(0, -2) / TEMPERATURE, 1)
        for scores in (ours, theirs)
    )
    return F.kl_div(soft, aim, reduction="batchmean", log_target=True) * TEMPERATURE**2


def _check_shapes(ours: Tensor, theirs: Tensor) -> None:
    if ours.shape != theirs.shape:
        shapes = " and ".join("x".join(map(str, t.shape)) for t in (ours, theirs))
        raise _incomparable(f"shapes {shapes}")


def _incomparable(why: str) -> CompressorError:
    return CompressorError(
        f"the outputs in training cannot be compared with the original's: {why}",
        consequence="the network was not trained",
        next_step="give labels and --distill 0, or a training step of your own (--train)",
    )


def _in_full(tensor: Tensor) -> Any:
    device = tensor.device.type
    enabled = torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if enabled else nullcontext()
