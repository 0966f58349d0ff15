"""Take the steps of a training: on any device, with several processes, recorded or not."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.calls import Call
from compressor.errors import CompressorError
from compressor.processes import processes, share_out
from compressor.recover.capturing import Captured, all_kept, why_not
from compressor.recover.evaluation import Batch, Batches, Progress
from compressor.recover.objective import Objective
from compressor.recover.recipe import Recipe, cosine, optimizer_of, set_rate
from compressor.recover.tally import Tally
from compressor.recover.training_state import TrainingState

if TYPE_CHECKING:
    from accelerate import Accelerator


class Descent:
    """A training under way, with its optimizer, processes and precision."""

    def __init__(
        self,
        module: nn.Module,
        recipe: Recipe,
        objective: Objective,
        device: torch.device,
        batches: int,
    ) -> None:
        self.recipe, self.objective, self.device = recipe, objective, device
        self.penalty, self.module = objective.penalty, module
        self.parameters = _trainable(module)
        self.why_not_captured = "not asked for"
        if recipe.captured:
            self.why_not_captured = why_not(recipe, objective, device)
        self.captured: Captured | None = None
        is_recorded = not self.why_not_captured
        self.optimizer = optimizer_of(self.parameters, recipe, on=device if is_recorded else None)
        self.batches = batches
        epochs = recipe.horizon or recipe.epochs
        self.steps = epochs * math.ceil(batches / recipe.accumulate)
        self.accelerator = _accelerator(device, recipe)
        self.is_channels_last = recipe.is_channels_last(device)
        self.laid_out = [module] if self.is_channels_last else []
        if self.is_channels_last and objective.weight and objective.teacher is not None:
            self.laid_out.append(objective.teacher)
        for each in self.laid_out:
            _lay_out(each, torch.channels_last)
        self.prepared = self.accelerator.prepare_model(module, device_placement=False)
        self.wrapped: nn.Module = self.prepared
        if recipe.compiled:
            self.wrapped = torch.compile(self.prepared)  # type: ignore[assignment]

    def end(self) -> None:
        """Restore the module's form (wrappers, memory format); it keeps its new weights."""
        self.accelerator.unwrap_model(self.prepared, keep_fp32_wrapper=False)
        for each in self.laid_out:
            _lay_out(each, torch.contiguous_format)
        self.captured = None
        self.optimizer.zero_grad()
        self.accelerator.free_memory()

    def epoch(
        self, epoch: int, batches: Batches, state: TrainingState, progress: Progress | None
    ) -> tuple[float, float, float]:
        """Train one pass; return mean loss per sample, last learning rate and seconds."""
        if hasattr(batches, "passes"):
            batches.passes = epoch - 1
        begin, seen = time.perf_counter(), 0
        words = f"epoch {epoch} of {self.recipe.epochs}"
        waits = self.device.type == "cpu" or processes() > 1
        tally = Tally(epoch, self.recipe.lr, waits=waits)
        for some in in_groups(batches, self.recipe.accumulate):
            is_read, seen = tally.add(*self.step(some, state)), seen + len(some)
            if progress is not None and is_read:
                spent = time.perf_counter() - begin
                left = spent / seen * (self.batches * (self.recipe.epochs - epoch + 1) - seen)
                done = (epoch - 1) * self.batches + seen
                so_far = f"{words}, loss {tally.loss:.4f}{_metric(state)}, {_spoken(left)} left"
                progress(done, self.batches * self.recipe.epochs, so_far)
        tally.read()
        state.losses += tally.losses
        return tally.loss, self.lr, time.perf_counter() - begin

    def step(self, some: list[Batch], state: TrainingState) -> tuple[Tensor, int]:
        """Take a step by the gradient over several batches.

        Returns:
            Their mean loss and the gradient's norm, [2], on the device; and the number of samples.
        """
        self.lr = self.recipe.lr * cosine(state.step, self.steps)
        set_rate(self.optimizer, self.lr)
        whole = sum(inputs.samples for inputs, _ in some)
        if not self.why_not_captured and self.captured is None:
            self._capture(self._on_device(some[0]), state)
        batch = self._on_device(some[0]) if self.captured is not None else None
        if self.captured is not None and self.captured.fits(batch):
            loss_and_norm = self.captured(batch)
        else:
            loss_and_norm = self._descend(some, whole)
        state.step += 1
        return loss_and_norm, whole

    def _capture(self, batch: Batch, state: TrainingState) -> None:
        """Record the step, or note why it cannot be; weights and moments stay as they are."""

        @contextmanager
        def kept() -> Iterator[None]:
            with keep_random_state(self.device), all_kept(self.module, self.optimizer):
                yield

        def step(inputs: Any) -> Tensor:
            return self._descend([inputs], inputs[0].samples)

        try:
            self.captured = Captured(step, batch, kept)
        except Exception as error:  # whatever CUDA says of what cannot be recorded
            self.why_not_captured = state.not_captured = " ".join(str(error).split())[:200]
        self.optimizer.zero_grad()

    def _on_device(self, batch: Batch) -> Batch:
        placed: Batch = pytree.tree_map_only(Tensor, self._place, batch)
        return placed

    def _descend(self, some: list[Batch], whole: int) -> Tensor:
        """Do what a step does on the device, without waiting for it; return loss and norm, [2]."""
        self.optimizer.zero_grad()
        total = torch.zeros((), device=self.device)
        for number, batch in enumerate(some, start=1):
            count = batch[0].samples
            part, weight = share_out(batch)
            inputs, target = self._on_device(part)
            is_last = number == len(some)
            with nullcontext() if is_last else self.accelerator.no_sync(self.prepared):
                with self.accelerator.autocast():
                    loss = self.objective(self.wrapped, inputs, target)
                loss = loss.float() + (self.penalty() if self.penalty is not None else 0.0)
                scaled = loss * (weight * count / whole)
                torch.autograd.backward(scaled)
            total += scaled.detach()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip)
        mean = self.accelerator.reduce(total, "mean")
        self.optimizer.step()
        return torch.stack([mean, norm.to(mean)])

    def _place(self, tensor: Tensor) -> Tensor:
        tensor = tensor.to(self.device, non_blocking=True)
        is_image = self.is_channels_last and tensor.ndim == 4
        return tensor.contiguous(memory_format=torch.channels_last) if is_image else tensor


def _metric(state: TrainingState) -> str:
    known = [r.metric for r in state.history if r.metric is not None]
    return f", validation {known[-1]:.4f}" if known else ""


def _spoken(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes >= 120:
        return f"{seconds / 3600:.1f} h"
    return f"{minutes} min" if seconds >= 90 else f"{seconds:.0f} s"


def in_groups(batches: Batches, size: int) -> Iterator[list[Batch]]:
    iterator = ((Call.of(inputs), target) for inputs, target in batches)
    while some := list(islice(iterator, size)):
        yield some


def _accelerator(device: torch.device, recipe: Recipe) -> Accelerator:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs

    AcceleratorState._reset_state(reset_partial_state=processes() == 1)
    return Accelerator(
        cpu=device.type == "cpu",
        device_placement=False,
        mixed_precision="bf16" if recipe.uses_bf16(device) else "no",
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


def _lay_out(module: nn.Module, memory_format: torch.memory_format) -> None:
    """Change the memory format of four-dimensional parameters, in place."""
    for tensor in module.parameters():
        if tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=memory_format)


def _trainable(module: nn.Module) -> list[nn.Parameter]:
    trainable = [p for p in module.parameters() if p.requires_grad]
    if not trainable:
        raise CompressorError(
            "the network has no parameter that could be trained",
            next_step="leave training out (--epochs 0)",
        )
    return trainable


@contextmanager
def keep_random_state(device: torch.device) -> Iterator[None]:
    cuda = range(torch.cuda.device_count()) if device.type == "cuda" else ()
    with torch.random.fork_rng(cuda):
        yield
