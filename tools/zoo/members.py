"""What a zoo is: members by name, how each is built, and what is left out and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from compressor.records import ExampleInputs

LARGEST_TIMM = 100_000_000
"""Parameters up to which a timm family takes part, by its smallest variant."""


@dataclass(frozen=True)
class Settings:
    """Where the run keeps what it found out, and where trained weights lie, if they are there."""

    cache: Path
    data_root: Path | None = None


@dataclass(frozen=True)
class Quality:
    """How good a trained network is: "accuracy" (a share) or "loss" (nats per token)."""

    name: str
    value: float

    def __str__(self) -> str:
        return f"{self.value:.1%}" if self.name == "accuracy" else f"{self.value:.3f}"

    @property
    def tolerance(self) -> float:
        """How much worse still counts as a little, in the terms of `worse_by`."""
        return 0.05 if self.name == "accuracy" else 0.2

    def worse_by(self, after: Quality) -> float:
        """Points of accuracy lost, or the share that the loss grew by."""
        if self.name == "accuracy":
            return self.value - after.value
        return after.value / self.value - 1


Batches = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Judge:
    """How a trained network is judged, and what its channels are scored on.

    `calibration` are (inputs, target) for `loss`; `evaluate` looks at other samples where there
    are enough.
    """

    evaluate: Callable[[nn.Module], Quality]
    calibration: Batches
    loss: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Subject:
    """A network in eval mode with inputs of one sample.

    Trained networks come with a judge and keep their weights; all others are drawn anew.
    """

    module: nn.Module
    examples: ExampleInputs
    judge: Judge | None = None


@dataclass(frozen=True)
class Zoo:
    """`names` lists the members, `skipped` says why others of the same zoo are left out;
    `smallest_first` orders names that do not come so."""

    names: Callable[[Settings], list[str]]
    build: Callable[[str, Settings], Subject]
    skipped: Callable[[Settings], Mapping[str, str]] = lambda _: {}
    smallest_first: Callable[[list[str]], list[str]] = lambda names: names
