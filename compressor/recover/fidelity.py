"""Measure how near a network's outputs are to the original's; no labels are needed.

The original is taken for right: a copy of it has fidelity 1. Nothing has to be known of what the
outputs mean: they may be scores, embeddings, maps or boxes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compressor.calls import Call
from compressor.double_precision import pieces_of
from compressor.errors import CompressorError
from compressor.padding import blank_padding, counted_of
from compressor.recover.evaluation import (
    Batch,
    Batches,
    Progress,
    call,
    real_outputs,
    to_eval,
    watch_batches,
)
from compressor.recover.spread import Spread

_TINY = 1e-30


@dataclass(frozen=True)
class Wanted:
    """What the original returns for a batch.

    Attributes:
        outputs: All of it.
        counted: Which positions of the batch are no padding, [samples, positions], if it tells.
    """

    outputs: Any
    counted: Tensor | None = None


def outputs_wanted(inputs: Call, wanted: Wanted) -> Any:
    """Return the original's outputs for some inputs, which stand in for running it again."""
    return wanted.outputs


class BesideOriginal:
    """Batches whose targets are what the original returns for them, each a `Wanted`."""

    def __init__(self, given: Batches, original: nn.Module, device: str | torch.device) -> None:
        self.given, self.original, self.device = given, original, device

    def __len__(self) -> int:
        return len(self.given) if isinstance(self.given, Sized) else 0

    def __iter__(self) -> Iterator[Batch]:
        to_eval(self.original.to(self.device))
        for inputs, _ in watch_batches(self.given, self.device, None, ""):
            yield inputs, Wanted(call(self.original, inputs), counted_of(inputs))


def fidelity(outputs: Any, wanted: Any) -> float:
    """Return the mean cosine of samples' outputs with the original's, over all outputs.

    Args:
        outputs: What a network returns for a batch.
        wanted: What the original returns, alone or as a `Wanted`; padded positions do not count.

    Raises:
        CompressorError: They return no floating tensor, or different ones.
    """
    cosines = [float(_cosines(*pair).mean()) for pair in _pairs(outputs, wanted).values()]
    return sum(cosines) / len(cosines)


@dataclass(frozen=True)
class Nearness:
    """How near one output of a network is to the original's.

    Attributes:
        cosine: Of a sample's output with the original's, the mean over the samples.
        relative_error: Root of the squared difference as a share of the original's squared
            deviation from its mean; 1 for a network that always returns the mean.
        same_argmax: Share of samples (and positions) that get the same class, the largest entry
            along the dimension of the classes; None where there are none.
        output: The output's place among all that is returned.
    """

    output: int
    cosine: float
    relative_error: float
    same_argmax: float | None


def measure_nearness(
    module: nn.Module,
    given: Batches,
    original: nn.Module,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
    *,
    classes: int | None = None,
) -> list[Nearness]:
    """Return how near each floating output is to the original's, over some batches.

    Both networks are moved to the device and left there, in eval mode.

    Args:
        module: The network.
        given: The batches; their targets do not matter.
        original: What it was made of.
        device: Where both are run.
        progress: Is told of each batch.
        classes: The dimension of an output that goes through classes; None: dimension 1.
    """
    to_eval(module.to(device))
    sums: dict[int, _Sums] = {}
    beside = BesideOriginal(given, original, device)
    with torch.no_grad():
        for inputs, wanted in watch_batches(beside, device, progress, "comparing"):
            for place, pair in _pairs(call(module, inputs), wanted).items():
                sums.setdefault(place, _Sums(place, classes or 1)).add(*pair, wanted.counted)
    return [each.result() for each in sums.values()]


class _Sums:
    """Sums over the samples of one output, in double precision."""

    def __init__(self, place: int, classes: int) -> None:
        self.place, self.classes = place, classes
        self.samples = self.places = self.same = 0
        self.cosine = self.error = 0.0
        self.spread = Spread()
        self.has_classes = False

    def add(self, outputs: Tensor, wanted: Tensor, counted: Tensor | None) -> None:
        """Add a batch's outputs, [samples, ...] each, with zeros at padded positions."""
        self.samples += len(wanted)
        self.cosine += float(_cosines(outputs, wanted).sum())
        self.error += sum(float((a - b).square().sum()) for a, b in pieces_of(outputs, wanted))
        self.spread.add(wanted, counted)
        if wanted.dim() > 1 and wanted.shape[1] > 1:
            same = outputs.argmax(self.classes) == wanted.argmax(self.classes)
            if counted is not None and same.shape == counted.shape:
                same = same[counted.to(same.device)]
            self.has_classes = True
            self.same, self.places = self.same + int(same.sum()), self.places + same.numel()

    def result(self) -> Nearness:
        return Nearness(
            self.place,
            self.cosine / self.samples,
            (self.error / max(self.spread.deviation, _TINY)) ** 0.5,
            self.same / self.places if self.has_classes else None,
        )


def _cosines(outputs: Tensor, wanted: Tensor) -> Tensor:
    """Return each sample's cosine, [samples]; 1 where both are zero, 0 where one is."""
    products, squares, others = torch.zeros(
        3, len(wanted), dtype=torch.float64, device=wanted.device
    )
    for a, b in pieces_of(outputs, wanted):
        products, squares = products + (a * b).sum(1), squares + a.square().sum(1)
        others = others + b.square().sum(1)
    both_zero = (squares == 0) & (others == 0)
    return torch.where(both_zero, 1.0, products / (squares.sqrt() * others.sqrt()).clamp(min=_TINY))


def _pairs(outputs: Any, wanted: Any) -> dict[int, tuple[Tensor, Tensor]]:
    """Return the floating outputs beside the original's, by their place among all that is given."""
    beside = wanted if isinstance(wanted, Wanted) else Wanted(wanted)
    actual, expected = (
        {place: blank_padding(t, beside.counted) for place, t in real_outputs(each).items()}
        for each in (outputs, beside.outputs)
    )
    shapes = [[tuple(t.shape) for t in each.values()] for each in (actual, expected)]
    if not expected or shapes[0] != shapes[1]:
        raise CompressorError(
            f"the outputs cannot be compared with the original's: {shapes[0]} and {shapes[1]}",
            consequence="fidelity was not measured",
            next_step="give a --metric of your own",
        )
    return {place: (actual[place], each) for place, each in expected.items()}
