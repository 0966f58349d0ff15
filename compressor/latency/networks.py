"""Time networks on ONNX Runtime and PyTorch by the clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from compressor.clock import Call, Clock, by_wall_and_processor, repeat, take_turn
from compressor.errors import CompressorError, UsageError
from compressor.records import Latency
from compressor.runtimes.inputs import draw_inputs
from compressor.runtimes.onnx import make_call, open_session
from compressor.runtimes.providers import check_provider
from compressor.torch_calls import TORCH, clock_of

_QUANTILES = (5, 25, 50, 75, 95)
_Times = tuple[float, float]
"""Milliseconds of one call: that passed, and of the processor in this thread (NaN: not known)."""
_Clock = Callable[[Call], _Times]


LARGE = 2**28
"""Bytes of a file beyond which it is opened once: it takes as much memory again."""


@dataclass(frozen=True)
class Timed:
    """The measured times of one network.

    Attributes:
        latency: The summary.
        turns: Milliseconds of each call by turn: the processor's where `latency` has them, else
            the wall clock's.
    """

    latency: Latency
    turns: tuple[tuple[float, ...], ...]


def measure_latency(models: Mapping[str, Path], **how: Any) -> dict[str, Latency]:
    """Time ONNX files against each other as `measure_turns`, and return the summaries alone."""
    return {name: timed.latency for name, timed in measure_turns(models, **how).items()}


def measure_turns(
    models: Mapping[str, Path],
    *,
    feeds: Mapping[str, np.ndarray[Any, Any]] | None = None,
    threads: int = 1,
    batch: int = 1,
    device: str = "cpu",
    seconds: float = 3.0,
) -> dict[str, Timed]:
    """Time ONNX files against each other on ONNX Runtime.

    The models take turns (A, B, A, B, …), so that a machine that slows down slows all of them;
    the first call of every turn only warms the caches and is not counted. One file under two names
    shows the noise; it is opened twice, since where its memory lies is a part of that, unless it is
    large.

    Args:
        models: Name -> ONNX file; all take the same inputs.
        feeds: Input name -> array. Default: random data (never zeros, which some kernels skip).
        threads: Threads within one operator; operators run one after another.
        batch: Size of every symbolic dimension of the default inputs.
        device: "cpu" or "cuda"; on an accelerator inputs and results stay there.
        seconds: How long to measure, all models together; slow ones get three turns at least.

    Raises:
        UsageError: The installed runtime does not run on the device.
        CompressorError: A file does not load, or does not run on the inputs.
    """
    if threads < 1 or batch < 1 or seconds <= 0:
        raise UsageError(
            f"latency needs at least one thread, a batch of one and some time, "
            f"not {threads} threads, batch {batch}, {seconds} s",
            next_step="give at least one of each",
        )
    check_provider(device)
    calls: dict[str, Call] = {}
    large: dict[Path, Call] = {}
    for name, path in models.items():
        calls[name] = large.get(path) or _prepare(path, feeds, threads, batch, device)
        if path.stat().st_size > LARGE:
            large[path] = calls[name]
    return _take_turns(calls, _Way("onnxruntime", device, threads, batch), seconds)


def measure_eager(
    modules: Mapping[str, nn.Module],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    threads: int = 1,
    batch: int = 1,
    device: str = "cpu",
    seconds: float = 3.0,
) -> dict[str, Timed]:
    """Time modules against each other as PyTorch runs them, in turns as `measure_turns` takes them.

    Args:
        modules: Name -> module, in eval mode, on the CPU.
        args, kwargs: The inputs, of `batch` samples.
        threads: Threads within one operator.
        batch: Number of samples of the inputs, for the record.
        device: Name of the device, for the record.
        seconds: How long to measure, all modules together.
    """
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        with torch.no_grad():
            calls = {name: partial(module, *args, **kwargs) for name, module in modules.items()}
            return _take_turns(calls, _Way("torch", device, threads, batch), seconds)
    finally:
        torch.set_num_threads(before)


def measure_calls(
    calls: Mapping[str, Call],
    *,
    runtime: str = "torch",
    clock: Clock | None = None,
    threads: int,
    batch: int,
    device: str,
    seconds: float,
) -> dict[str, Timed]:
    """Time calls of one runtime against each other, in the same turns.

    Args:
        calls: Name -> a call that is ready on the device.
        runtime: Name of the runtime, for the record.
        clock: Times a call; default PyTorch's: on a GPU by its events.
        threads: Threads within one operator, which the caller has set.
        batch: Samples in each call.
        device: Name of the device; "torch-cpu" or "torch-cuda" for PyTorch.
        seconds: How long to measure, all calls together.
    """
    by = clock or clock_of(device.removeprefix(TORCH))
    way = _Way(runtime, device, threads, batch)
    return _take_turns(calls, way, seconds, lambda call: (by(call), math.nan))


@dataclass(frozen=True)
class _Way:
    """How networks are timed, for the record of their latencies."""

    runtime: str
    device: str
    threads: int
    batch: int
    host: str = ""


def sum_up(turns: list[list[_Times]], threads: int, batch: int, host: str) -> Timed:
    """Sum up what ONNX Runtime took on another machine's CPU.

    Args:
        turns: Both times of each call, by turn.
        threads: Threads within one operator.
        batch: Samples in a call.
        host: The machine.
    """
    return _sum_up(turns, _Way("onnxruntime", "cpu", threads, batch, host))


def _take_turns(
    calls: Mapping[str, Call], way: _Way, seconds: float, clock: _Clock = by_wall_and_processor
) -> dict[str, Timed]:
    """Let calls take turns for some seconds, three turns at least, and sum up their times."""
    times: dict[str, list[list[_Times]]] = {name: [] for name in calls}
    turn_seconds = min(0.02, seconds / max(1, 6 * len(calls)))
    for _ in repeat(seconds if calls else 0.0, 3):
        for name, call in calls.items():
            times[name].append(take_turn(call, turn_seconds, clock))
    return {name: _sum_up(found, way) for name, found in times.items()}


def _sum_up(turns: list[list[_Times]], way: _Way) -> Timed:
    wall, processor = np.concatenate([np.asarray(turn) for turn in turns]).T
    quantiles = tuple(map(float, np.percentile(wall, _QUANTILES)))
    is_alone = way.device == "cpu" and way.threads == 1 and not np.isnan(processor).any()
    own = float(np.median(processor)) if is_alone else None
    p90 = float(np.percentile(wall, 90))
    where = (way.runtime, way.device, way.threads, way.batch)
    latency = Latency(*where, quantiles[2], p90, own, quantiles_ms=quantiles, host=way.host)
    which = 0 if own is None else 1
    return Timed(latency, tuple(tuple(times[which] for times in turn) for turn in turns))


def _prepare(
    path: Path, feeds: Mapping[str, Any] | None, threads: int, batch: int, device: str
) -> Call:
    """Return a function that runs the model on its inputs, after one trial run."""
    try:
        session = open_session(path, threads, device)
        given = (
            draw_inputs(session, batch)
            if feeds is None
            else {spec.name: feeds[spec.name] for spec in session.get_inputs()}
        )
        session.run(None, given)
    except KeyError as error:
        raise CompressorError(
            f"the network wants an input {error} that was not given",
            where=str(path),
            next_step="give every input of the network",
        ) from error
    except Exception as error:  # ONNX Runtime's own exceptions share no base but this one
        raise CompressorError(
            f"ONNX Runtime could not run the network: {error}",
            where=str(path),
            consequence="its latency was not measured",
            next_step="check that this ONNX Runtime knows the operators of the file",
        ) from error
    return make_call(session, given, device)
