"""Record where a training stands, so that it can go on after it was killed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from compressor.metrics import HIGHER
from compressor.recover.falling import Course

Tensors = dict[str, Tensor]
Moments = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class EpochResult:
    """The result of one pass over the training data.

    Attributes:
        epoch: Number of the epoch, from 1.
        loss: Mean loss per sample.
        lr: Last learning rate.
        seconds: Time that it took.
        metric: The metric on validation data, if there are any.
    """

    epoch: int
    loss: float
    lr: float
    seconds: float
    metric: float | None = None


@dataclass
class TrainingState:
    """Where a training stands after some epochs.

    Attributes:
        epoch: Epochs done.
        step: Optimizer steps done.
        weights: Weights of the module, by its state's names.
        moments: The optimizer's state of each parameter, by the parameter's name.
        history: One entry per epoch.
        losses: Mean loss of each step.
        not_captured: Why steps were not replayed as a CUDA graph, though that was asked for.
        best: Weights after the epoch whose metric was best (the earliest of equal ones).
        better: Which way the metric is better.
    """

    epoch: int = 0
    step: int = 0
    weights: Tensors = field(default_factory=dict)
    moments: Moments = field(default_factory=dict)
    history: list[EpochResult] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    best: Tensors = field(default_factory=dict)
    not_captured: str = ""
    better: str = HIGHER

    @property
    def best_epoch(self) -> int | None:
        """Return the epoch of the best metric; None where none was measured."""
        sign = 1 if self.better == HIGHER else -1
        measured = [(sign * r.metric, -r.epoch) for r in self.history if r.metric is not None]
        return -max(measured)[1] if measured else None

    @property
    def course(self) -> Course | None:
        """Return how the loss went; None of too few steps to tell."""
        return Course.of(self.losses, len(self.history)) if self.history else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers and tensors, which load without running code."""
        return {**vars(self), "history": [asdict(result) for result in self.history]}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> TrainingState:
        """Build a state from what `to_dict` returned."""
        history = [EpochResult(**result) for result in stored["history"]]
        return cls(**{**stored, "history": history})

    def note_weights(self, module: nn.Module) -> None:
        """Store a copy of the module's weights as they are now."""
        self.weights = weights_of(module)

    def note_moments(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Store a copy of the optimizer's state, by the parameters' names."""
        self.moments = {
            name: {key: _copy_to_cpu(value) for key, value in optimizer.state[parameter].items()}
            for name, parameter in module.named_parameters()
            if parameter in optimizer.state
        }

    def give_moments(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Give the optimizer, in place, the stored state of the parameters that have one."""
        for name, parameter in module.named_parameters():
            for key, value in self.moments.get(name, {}).items():
                if isinstance(value, Tensor):
                    # which optimizers keep on the CPU, unless their steps are recorded
                    is_counter = value.ndim == 0 and not optimizer.defaults.get("capturable")
                    device = value.device if is_counter else parameter.device
                    value = value.to(device, copy=True)
                optimizer.state[parameter][key] = value


@dataclass
class Schedule:
    """What trainings of one schedule hand on, so that with cuts in between they are one descent.

    Attributes:
        horizon: Epochs of all of them; the learning rate falls over these.
        step: Optimizer steps done.
        moments: The optimizer's state of each parameter, by the parameter's name.
    """

    horizon: int
    step: int = 0
    moments: Moments = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the state as plain containers and tensors, which load without running code."""
        return {"horizon": self.horizon, "step": self.step, "moments": self.moments}

    def begin(self) -> TrainingState:
        """Return the state from which the next training starts."""
        return TrainingState(step=self.step, moments=dict(self.moments))

    def note(self, state: TrainingState) -> None:
        """Take over the steps and moments of a training that has ended."""
        self.step, self.moments = state.step, state.moments

    def cut(self, indices: Mapping[str, Mapping[int, Sequence[int]]]) -> None:
        """Cut the stored moments to the positions of the tensors that are kept.

        Args:
            indices: Tensor name -> dimension -> kept indices.
        """
        self.moments = {
            name: {key: _cut(value, indices.get(name, {})) for key, value in state.items()}
            for name, state in self.moments.items()
        }


def _cut(value: Any, kept: Mapping[int, Sequence[int]]) -> Any:
    for dim, positions in kept.items() if isinstance(value, Tensor) and value.ndim else ():
        value = value.index_select(dim, torch.tensor(positions))
    return value


def weights_of(module: nn.Module) -> Tensors:
    """Return a copy of the module's state by name, on the CPU."""
    return {
        name: tensor.detach().to("cpu", copy=True)
        for name, tensor in module.state_dict().items()
        if isinstance(tensor, Tensor)
    }


def _copy_to_cpu(value: Any) -> Any:
    return value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value
