"""Define what a criterion is: it goes from what is known of a network to numbers per channel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from compressor.graph.network import Network
from compressor.records import Trace

Floats = npt.NDArray[np.float64]
Scores = dict[str, Floats]
"""Group name -> one number per channel, [size], high where the channel matters."""
Rows = Mapping[str, Sequence[Floats]]
"""Group name -> what a criterion found in each place: rows with one number per channel, [size].
There is no row where it measures nothing."""

Batches = Iterable[tuple[Any, Any]]
"""Batches of (inputs, target or None); inputs are a `Call`, or positional ones alone."""
Loss = Callable[[Any, Any], torch.Tensor]
"""A function of (outputs, target) that returns the mean loss over the samples."""


@dataclass(frozen=True)
class Calibration:
    """Calibration data, and what it runs through.

    Attributes:
        trace: The traced network; where its batch is static, every batch has that size.
        batches: What is run; in a distributed run this process's part of it.
        loss: The loss, for criteria that follow it.
        device: Where it runs; the module of the trace is left there.
        memory: Bytes that may be taken beside the network; None: the default.
    """

    trace: Trace
    batches: Batches
    loss: Loss
    device: str = "cpu"
    memory: int | None = None


@dataclass(frozen=True)
class Material:
    """What a criterion can draw on.

    Attributes:
        network: The network's analysis.
        tensors: The parameters by name.
        calibration: Data, for criteria that need some.
        norm_p: The p of "lp".
        seed: Seed of "random" and of samples.
        unit: The unit of the budget, for criteria that weigh costs; None where the budget weighs
            them itself.
        progress: Is told (done, total, what) by criteria that take long.
        note: Is told what the user should know.
    """

    network: Network
    tensors: Mapping[str, torch.Tensor]
    calibration: Calibration | None = None
    norm_p: float = 2.0
    seed: int = 0
    unit: str | None = "macs"
    progress: Callable[[int, int, str], None] = lambda done, total, what: None
    note: Callable[[str], None] = lambda text: None

    @property
    def data(self) -> Calibration:
        """Return the calibration, for criteria that declare that they need it."""
        assert self.calibration is not None
        return self.calibration


Needs = Literal["weights", "data", "labels"]
"""What a criterion needs: the weights alone; samples; or samples and a loss, which needs labels
unless the user's own does without."""


@dataclass(frozen=True)
class Criterion:
    """One way to tell how important channels are.

    Attributes:
        measures: What is measured, in one line.
        paper: Where it is from.
        rows: Finds the numbers. A criterion that finishes its scores itself gives one row per
            group, and "none" for `normalise`.
        needs: What it draws on beside the network.
        normalise: How groups are made comparable unless the user chooses.
    """

    measures: str
    paper: str
    rows: Callable[[Material], Rows]
    needs: Needs = "weights"
    normalise: str = "mean"
