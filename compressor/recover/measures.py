"""Count over batches what a network is judged by: a metric of one's own, or one of the tool's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.calls import Call
from compressor.errors import CompressorError
from compressor.metrics import (
    EMBEDDING_SHIFT,
    FIDELITY,
    PERPLEXITY,
    SAME_NEIGHBOUR,
    TOP1,
    Scale,
    scale_of,
)
from compressor.padding import counted_of, counted_targets
from compressor.recover.evaluation import (
    IGNORED,
    Batches,
    Count,
    MeanOf,
    Progress,
    count_over,
    primary_output,
    require_labels,
)
from compressor.recover.fidelity import BesideOriginal, Wanted, fidelity, outputs_wanted
from compressor.recover.tasks import Task


@dataclass(frozen=True)
class Measure:
    """What a network is judged by.

    Attributes:
        name: Of the number that decides, the first one that is counted.
        begin: Begins to count.
        scale: How its values compare.
        is_beside_original: Whether targets are what the original returns.
    """

    name: str
    begin: Callable[[], Count]
    scale: Scale
    is_beside_original: bool = False

    @classmethod
    def of_function(cls, name: str, function: Callable[[Any, Any], Any]) -> Measure:
        """Take the mean over samples of what a function of (outputs, target) returns for a batch.

        Less is better where the function says so, as those of torchmetrics do: it has an attribute
        `higher_is_better`, which is False.
        """
        is_lower = getattr(function, "higher_is_better", True) is False
        return cls(name, lambda: MeanOf(function), scale_of(name, is_lower_better=is_lower))

    @classmethod
    def named(cls, name: str, task: Task) -> Measure:
        """Return a measure of the tool's own, a key of `COUNTS`."""
        is_beside = name in (FIDELITY, EMBEDDING_SHIFT)
        return cls(name, lambda: COUNTS[name](task), scale_of(name), is_beside)

    def all_of(
        self,
        module: nn.Module,
        batches: Batches,
        device: str | torch.device = "cpu",
        *,
        original: nn.Module | None = None,
        progress: Progress | None = None,
    ) -> dict[str, float]:
        """Judge a network on batches; the first number is the one that decides.

        The modules are moved to `device` and left there, in eval mode.

        Args:
            module: The network.
            batches: Batches of inputs and targets.
            device: Where it runs.
            original: What it was made of; needed where it is judged beside that.
            progress: Is told of each batch.

        Raises:
            CompressorError: There are no data, or the network or the metric fails on a batch.
        """
        run = None
        if self.is_beside_original:
            assert original is not None
            batches = BesideOriginal(batches, original, device)
            # its outputs are the targets already
            run = outputs_wanted if module is original else None
        first, *others = count_over(module, batches, self.begin(), device, progress, run).items()
        return {self.name: first[1], **dict(others)}


class _OfClasses:
    """Sums over all positions that have a target of which the classes are scored."""

    def __init__(self, task: Task) -> None:
        self.task, self.total, self.count = task, 0.0, 0

    def add(self, inputs: Call, outputs: Any, target: Any) -> None:
        """Add a batch; classes at padded positions do not count."""
        require_labels(target)
        target = counted_targets(torch.as_tensor(target), counted_of(inputs), IGNORED)
        scores = primary_output(outputs)
        # samples of many scores one by one: a copy of them all may be larger than the network
        size = len(target) if self.task.classes is None else 1
        try:
            for start in range(0, len(target), size):
                some = slice(start, start + size)
                self._add(*self.task.align(scores[some], target[some]))
        except (RuntimeError, ValueError, IndexError) as error:
            raise CompressorError(
                f"outputs and targets are not those of a network that {self.task.words}: {error}",
                consequence="the network was not evaluated",
                next_step="give a --metric of your own, called with (outputs, target)",
            ) from error

    def _add(self, scores: Tensor, classes: Tensor) -> None:
        self.count += int((classes != IGNORED).sum())
        self.total += float(self._sum(scores, classes))

    def _sum(self, scores: Tensor, classes: Tensor) -> Tensor:
        raise NotImplementedError

    @property
    def mean(self) -> float:
        """Return the mean over the positions; raise CompressorError where there is no number."""
        if not self.count or not math.isfinite(self.total):
            what = "no position of the data has a target"
            raise CompressorError(
                f"the outputs have scores that give {self.total}" if self.count else what,
                consequence="the network was not evaluated",
                next_step="check the weights for NaN"
                if self.count
                else "give longer texts, or labels other than -100",
            )
        return self.total / self.count


class _Perplexity(_OfClasses):
    """e to the mean negative logarithm of the probability of what was to be found."""

    def _sum(self, scores: Tensor, classes: Tensor) -> Tensor:
        return F.cross_entropy(scores.float(), classes, ignore_index=IGNORED, reduction="sum")

    def results(self) -> dict[str, float]:
        """Return the perplexity; what is beyond all numbers as the largest."""
        return {PERPLEXITY: math.exp(min(self.mean, 700.0))}


class _Accuracy(_OfClasses):
    """The share of positions whose largest score is the target's."""

    def _sum(self, scores: Tensor, classes: Tensor) -> Tensor:
        return (scores.argmax(1) == classes)[classes != IGNORED].sum()

    def results(self) -> dict[str, float]:
        """Return the share."""
        return {TOP1: self.mean}


class _Embeddings:
    """How far vectors are from the original's, and whether each is next to the same one."""

    def __init__(self, _: Task) -> None:
        self.ours: list[Tensor] = []
        self.theirs: list[Tensor] = []

    def add(self, inputs: Call, outputs: Any, target: Any) -> None:
        """Add a batch; the target is what the original returns for it."""
        assert isinstance(target, Wanted)
        self.ours.append(_pooled(outputs, target.counted))
        self.theirs.append(_pooled(target.outputs, target.counted))

    def results(self) -> dict[str, float]:
        """Return 1 - the mean cosine, and the share of samples next to the same other sample."""
        ours, theirs = (F.normalize(torch.cat(each), dim=1) for each in (self.ours, self.theirs))
        shift = {EMBEDDING_SHIFT: 1 - float((ours * theirs).sum(1).mean())}
        if len(ours) < 3:
            return shift  # there is but one other
        same = _neighbours(ours) == _neighbours(theirs)
        return {**shift, SAME_NEIGHBOUR: float(same.double().mean())}


def _pooled(outputs: Any, counted: Tensor | None) -> Tensor:
    """Return a vector for each sample, the mean over its positions, [samples, size]."""
    output = primary_output(outputs).double().cpu()
    if output.ndim < 3:
        return output.reshape(len(output), -1)
    output = output.flatten(1, -2)
    if counted is None or counted.shape != output.shape[:2]:
        return output.mean(1)
    weights = counted.cpu().double()[..., None]
    return (output * weights).sum(1) / weights.sum(1).clamp(min=1)


def _neighbours(vectors: Tensor) -> Tensor:
    """Return of each unit vector which other one is nearest to it."""
    nearest = []
    for start in range(0, len(vectors), 1024):
        near = vectors[start : start + 1024] @ vectors.t()
        own = torch.arange(len(near))
        near[own, start + own] = -2.0
        nearest.append(near.argmax(1))
    return torch.cat(nearest)


COUNTS: Mapping[str, Callable[[Task], Count]] = {
    TOP1: _Accuracy,
    PERPLEXITY: _Perplexity,
    EMBEDDING_SHIFT: _Embeddings,
    FIDELITY: lambda task: MeanOf(fidelity),
}
"""Name of a metric -> what begins to count it for a task."""
