"""Bring what steps found from the device in portions, so that it is not waited for at each."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from compressor.errors import CompressorError

PATIENCE = 1.0
"""Seconds after which what was found is looked at."""


class Tally:
    """The losses and gradients of one epoch's steps.

    Args:
        waits: Look at each step at once: where that costs nothing, or where several processes have
            to stop at the same one.
    """

    def __init__(self, epoch: int, lr: float, *, waits: bool) -> None:
        self.epoch, self.lr, self.waits = epoch, lr, waits
        self.total, self.samples = 0.0, 0
        self.losses: list[float] = []
        self._unread: list[tuple[Tensor, int]] = []
        self._since = time.perf_counter()

    @property
    def loss(self) -> float:
        """Return the mean loss per sample, over the steps that were read."""
        return self.total / self.samples

    def add(self, found: Tensor, samples: int) -> bool:
        """Note a step's loss and gradient's norm, [2]; return whether all were looked at."""
        self._unread.append((found, samples))
        if not self.waits and time.perf_counter() - self._since < PATIENCE:
            return False
        self.read()
        return True

    def read(self) -> None:
        """Look at all steps that were noted.

        Raises:
            CompressorError: The loss or the gradient of one is not finite.
        """
        values = torch.stack([step for step, _ in self._unread]).tolist() if self._unread else []
        for (loss, norm), (_, samples) in zip(values, self._unread, strict=True):
            self.losses.append(loss)
            self._check_finite(loss, norm)
            self.total, self.samples = self.total + loss * samples, self.samples + samples
        self._unread, self._since = [], time.perf_counter()

    def _check_finite(self, loss: float, gradient: float) -> None:
        for name, value in (("loss", loss), ("gradient", gradient)):
            if not math.isfinite(value):
                raise CompressorError(
                    f"the {name} became {value}",
                    where=f"epoch {self.epoch}, step {len(self.losses)}",
                    consequence="training stopped; the weights after the last whole epoch are kept",
                    next_step=f"use a learning rate below {self.lr:g}, and check the data for NaN",
                )
