"""Time layers on their own as PyTorch runs them, against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch

from compressor.clock import Call, repeat
from compressor.latency.layer_bench import Case, naming
from compressor.latency.torch_layers import Makers, call_of
from compressor.torch_calls import (
    DTYPES,
    TORCH,
    check_cuda,
    clock_of,
    computing_in,
    lies_channels_last,
    record_graph,
)

_REPEATED = 10
"""Calls of a layer within one recorded graph: what a replay takes by itself is shared by them."""


@dataclass(frozen=True)
class TorchBench:
    """A bench that runs layers with PyTorch on this machine.

    The layers take turns, as those of `OnnxBench` do. On a GPU each is a CUDA graph of several
    calls, timed by the device's events, so that the time is the kernels' alone.

    Attributes:
        device: "torch-cpu" or "torch-cuda".
        precision: What layers compute in, a key of `torch_calls.DTYPES`.
        threads: Within one operator, on the CPU.
        seconds, least, most: How long one layer may be repeated, and how often.

    Raises:
        UsageError: PyTorch has no such device here.
    """

    device: str
    precision: str = "fp32"
    threads: int = 1
    seconds: float = 0.01
    least: int = 3
    most: int = 20

    def __post_init__(self) -> None:
        if self._device != "cpu":
            check_cuda("--latency-on")

    @property
    def _device(self) -> str:
        return self.device.removeprefix(TORCH)

    def times_ms(self, cases: Sequence[Case]) -> list[float]:
        """Time each case, and return the median of its calls in milliseconds.

        Raises:
            CompressorError: PyTorch cannot run a layer.
        """
        before, clock = torch.get_num_threads(), clock_of(self._device)
        repeated = 1 if self._device == "cpu" else _REPEATED
        try:
            torch.set_num_threads(self.threads)
            with computing_in(self.precision):
                calls = [self._start(case, repeated) for case in cases]
                times: list[list[float]] = [[] for _ in calls]
                for _ in repeat(self.seconds * len(calls), self.least, self.most):
                    for call, measured in zip(calls, times, strict=True):
                        measured.append(clock(call) / repeated)
        finally:
            torch.set_num_threads(before)
        return [median(measured) for measured in times]

    def _start(self, case: Case, repeated: int) -> Call:
        """Make the layer's call, and call it once."""
        make = Makers(
            self._device, DTYPES[self.precision], lies_channels_last(self._device, self.precision)
        )
        with naming("PyTorch", case):
            one = call_of(case.kind, case.sizes, case.literals, make)
            one()
            return one if repeated == 1 else record_graph(partial(_last_of, one, repeated))


def _last_of(call: Call, times: int) -> object:
    """Call so many times, and return the last result alone: the others' memory is free again."""
    result: object = None
    for _ in range(times):
        result = call()
    return result
