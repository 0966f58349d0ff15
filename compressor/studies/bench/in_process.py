"""Time modules against each other in this process.

For modules that are no files, and for GPUs, whose memory a process for each would hold several
times.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from compressor.clock import WARM_UP_SECONDS, Call, Clock, take_turn, warm_up
from compressor.errors import CompressorError
from compressor.formats.program_file import run_in
from compressor.runtimes.process import peak_mb
from compressor.runtimes.ways import Way
from compressor.studies.bench.turns import in_turns
from compressor.torch_calls import clock_of, computing_in


class _Here:
    """A module that is ready to run: its call with a clock."""

    def __init__(self, call: Call, clock: Clock, seconds: float) -> None:
        self._call, self._clock = call, clock
        warm_up(partial(clock, call), min(WARM_UP_SECONDS, seconds / 5))

    def round(self, seconds: float) -> dict[str, Any]:
        return {"ms": take_turn(self._call, seconds, self._clock), "peak_mb": peak_mb()}


def time_modules(
    modules: Mapping[str, nn.Module],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    way: Way,
    *,
    seconds: float = 3.0,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Time modules against the first of them; the records are those of `compress bench`.

    They take turns, the first one a second time, whose ratio is the noise. Copies are timed, in
    eval mode; the modules stay as they are.

    Args:
        modules: Name -> module; all take the same inputs.
        args, kwargs: The inputs, of `way.batch` samples, on any device.
        way: A backend of PyTorch, a device and a precision.
        seconds: How long to measure, all modules together.
        seed: Of the intervals of the ratios.

    Raises:
        CompressorError: A module cannot be run in this way.
    """
    with computing_in(way.precision):
        torch.compiler.reset()  # or PyTorch stops compiling after some networks of one class
        every = [*modules.items(), next(iter(modules.items()))]
        contestants = [_start(name, module, args, kwargs, way, seconds) for name, module in every]
        return in_turns(list(modules), contestants, way, seconds=seconds, seed=seed)


def _start(
    name: str,
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    way: Way,
    seconds: float,
) -> _Here:
    try:
        call = run_in(way, copy.deepcopy(module).eval(), args, kwargs)
        return _Here(call, clock_of(way.device), seconds)
    except Exception as error:  # whatever PyTorch and the module raise
        raise CompressorError(
            f"the network does not run: {type(error).__name__}: {error}",
            where=f"{name}, {way.words}",
            consequence="nothing was timed in this way",
            next_step="try another backend, precision or batch",
        ) from error
