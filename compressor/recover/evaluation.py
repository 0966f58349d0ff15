"""Run a network over batches and score its outputs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.calls import Call
from compressor.errors import CompressorError

Batch = tuple[Call, Any]
"""A batch: the network's inputs and the target or None, each with a leading batch dimension."""
Batches = Iterable[tuple[Any, Any]]
"""An iterable of batches; inputs may be a sequence of positional ones instead of a call."""


class CountedBatches(Protocol):
    """Batches whose number is known."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[Any, Any]]: ...


IGNORED = -100
"""The class of positions that count in nothing, as in PyTorch's cross-entropy."""
Metric = Callable[[Any, Any], float]
Progress = Callable[[int, int, str], None]

_CALL_ERRORS = (RuntimeError, ValueError, TypeError, AssertionError, IndexError, KeyError)


def primary_output(outputs: Any) -> Tensor:
    """Return the first tensor of what a network returns: the logits, where several are returned.

    Raises:
        CompressorError: It returns no tensor.
    """
    for leaf in pytree.tree_leaves(outputs):
        if isinstance(leaf, Tensor):
            return leaf
    logits = getattr(outputs, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    raise CompressorError(
        f"the network returns no tensor but {type(outputs).__name__}",
        next_step="give a --metric and a --loss that take these outputs",
    )


def real_outputs(outputs: Any) -> dict[int, Tensor]:
    """Return the real tensors with dimensions, by their places among all that a network returns.

    Raises:
        CompressorError: It returns no tensor.
    """
    leaves = {i: t for i, t in enumerate(pytree.tree_leaves(outputs)) if isinstance(t, Tensor)}
    tensors = leaves or {0: primary_output(outputs)}
    return {place: t for place, t in tensors.items() if t.is_floating_point() and t.dim() > 0}


def why_no_classes(outputs: Any, target: Any) -> str:
    """Return in words why outputs and targets are not class scores and classes; "" where they are.

    Scores are [samples, classes, *positions], targets the numbers of classes, [samples,
    *positions].
    """
    if not isinstance(target, Tensor):
        return f"a target is a {type(target).__name__}"
    scores = primary_output(outputs)
    shapes = " and ".join("x".join(map(str, t.shape)) for t in (scores, target))
    if target.is_floating_point() or target.is_complex():
        kind = str(target.dtype).removeprefix("torch.")
        return f"the targets are real numbers, {kind}, and classes are integers"
    if scores.ndim < 2 or scores.shape[1] < 2:
        return f"outputs of shape {'x'.join(map(str, scores.shape))} are no scores of classes"
    if target.shape != (*scores.shape[:1], *scores.shape[2:]):
        return f"outputs and targets have shapes {shapes}; classes are dimension 1 of the outputs"
    return ""


def top1(outputs: Any, target: Any) -> float:
    """Return the share of samples (or positions) whose largest class score is the target's.

    Scores are [samples, classes, *positions], targets [samples, *positions], of which `IGNORED`
    ones do not count.
    """
    require_labels(target)
    scores, classes = primary_output(outputs), torch.as_tensor(target)
    right = (scores.argmax(1) == classes)[classes != IGNORED]
    return float(right.double().mean()) if right.numel() else 0.0


def top5(outputs: Any, target: Any) -> float:
    """Return the share of samples (or positions) with the target among the five largest scores.

    Scores are [samples, classes, *positions], targets [samples, *positions].
    """
    require_labels(target)
    best = primary_output(outputs).topk(5, dim=1).indices
    return float((best == torch.as_tensor(target).unsqueeze(1)).any(1).double().mean())


def require_labels(target: Any) -> None:
    """Raise CompressorError where there is no target."""
    if target is None:
        raise CompressorError(
            "the data has no labels, so there is nothing to compare the outputs with",
            consequence="the network was not evaluated",
            next_step="give labelled data, or a --metric that does without",
        )


class Count(Protocol):
    """What is counted over batches, of which a network is judged by the result."""

    def add(self, inputs: Call, outputs: Any, target: Any) -> None:
        """Add what a network returned for a batch."""

    def results(self) -> Mapping[str, float]:
        """Return what was counted by name; the first number is the one that decides."""


class MeanOf:
    """The mean of `metric(outputs, target)` over the batches, each weighted by its samples."""

    def __init__(self, metric: Metric) -> None:
        self.metric, self.total, self.samples = metric, 0.0, 0

    def add(self, inputs: Call, outputs: Any, target: Any) -> None:
        """Add a batch."""
        self.total += inputs.samples * _score(self.metric, outputs, target)
        self.samples += inputs.samples

    def results(self) -> Mapping[str, float]:
        """Return the mean, by the metric's name."""
        return {getattr(self.metric, "__name__", "metric"): self.total / self.samples}


def evaluate(
    module: nn.Module,
    batches: Batches,
    metric: Metric = top1,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> float:
    """Return the mean of `metric(outputs, target)` over the batches, each weighted by its samples.

    The module is moved to `device` and left there, in eval mode.

    Raises:
        CompressorError: There is no data, there are no labels for a metric that needs them, or the
            network or the metric fails on a batch.
    """
    (value,) = count_over(module, batches, MeanOf(metric), device, progress).values()
    return value


def count_over(
    module: nn.Module,
    batches: Batches,
    count: Count,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
    run: Callable[[Call, Any], Any] | None = None,
) -> dict[str, float]:
    """Run a network over batches, and return what is counted of its outputs (see `evaluate`).

    Args:
        module: The network.
        batches: Batches of inputs and targets.
        count: Counts.
        device: Where it runs.
        progress: Is told of each batch.
        run: Returns the outputs for inputs and their target; default calls the network.
    """
    to_eval(module.to(device))
    is_empty = True
    with torch.no_grad():
        for inputs, target in watch_batches(batches, device, progress, "evaluating"):
            outputs = call(module, inputs) if run is None else run(inputs, target)
            count.add(inputs, outputs, target)
            is_empty = False
    if is_empty:
        raise CompressorError(
            "there is not one sample to evaluate on", next_step="give data that is not empty"
        )
    return dict(count.results())


def _score(metric: Metric, outputs: Any, target: Any) -> float:
    try:
        value = float(metric(outputs, target))
    except CompressorError:
        raise
    except Exception as error:  # the metric is the user's code
        raise CompressorError(
            f"the metric failed: {type(error).__name__}: {error}",
            where=getattr(metric, "__name__", str(metric)),
            next_step="a metric takes (outputs, target) of one batch and returns a number",
        ) from error
    if not math.isfinite(value):
        raise CompressorError(
            f"the metric is {value}",
            where=getattr(metric, "__name__", str(metric)),
            next_step="check the metric: it must return one finite number",
        )
    return value


def to_eval(module: nn.Module) -> None:
    # A module fresh from torch.export refuses to switch; it is in the mode it was exported in.
    with contextlib.suppress(NotImplementedError):
        module.eval()


def call(module: nn.Module, inputs: Call) -> Any:
    """Run the network on a batch and return its outputs.

    Raises:
        CompressorError: The network fails.
    """
    try:
        return inputs.to(module)
    except _CALL_ERRORS as error:
        raise CompressorError(
            f"the network failed on a batch: {error}",
            where=f"inputs of shape {inputs.shapes}",
            next_step="check that the data has the shape that the network was traced with",
        ) from error


def watch_batches(
    batches: Batches, device: str | torch.device, progress: Progress | None, text: str
) -> Iterator[Batch]:
    """Yield the batches on the device, and tell `progress` after each."""
    total = len(batches) if isinstance(batches, Sized) else 0
    for done, (inputs, target) in enumerate(batches, start=1):
        batch = Call.of(inputs), target
        yield pytree.tree_map_only(Tensor, lambda leaf: leaf.to(device), batch)
        if progress is not None:
            progress(done, total, text)
