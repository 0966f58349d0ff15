"""Learn how the target runs the network: which widths suit its kernels, and what they take."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from compressor.choose.budget import is_timed
from compressor.errors import CompressorError
from compressor.files.claimed import temporary_folder
from compressor.files.format_table import FORMATS, ONNX, PROGRAM, TARGETS, is_run
from compressor.formats.original import Original, Runnable
from compressor.graph.network import Network
from compressor.latency import (
    LatencyModel,
    LatencyTable,
    Layer,
    layers_of,
    measure_table,
    read_given_table,
    width_steps,
)
from compressor.latency.machine import LAYERS_ON, Setting, path_in_cache
from compressor.latency.networks import Timed, measure_turns
from compressor.latency.on_host import ask_target, bench_on, measure_turns_on
from compressor.listing import some_of
from compressor.options import Options
from compressor.processes import of_the_first
from compressor.records import Latency, Trace
from compressor.run.format_timing import time_files
from compressor.run.torch_timing import measure_programs
from compressor.runtimes.providers import PROVIDERS, check_provider, has_provider
from compressor.torch_calls import TORCH
from compressor.watch import Stopwatch, Tick

NARROW = 64
"""Where latency is the budget, groups up to this size may get any width: the clock, which knows
the times of these widths, takes those that save most. Wider groups keep to the steps."""

USUAL_STEP = 8
"""What widths are multiples of where nothing is timed: tensor cores want that in 16 bits."""

FIT_SECONDS = 1.0
"""Seconds that the original is timed for, so that predictions are in its milliseconds."""


@dataclass(frozen=True)
class Timing:
    """What is known of the machine that the network is to run on.

    Attributes:
        steps: Widths are multiples of this number, or of the group's own.
        clock: Predicts the network's latency; None where nothing asked for it.
        table: The layers' times, measured or given; None where the steps are fixed.
        can_check: Whether networks can be timed where the times hold, so that predictions can be
            checked.
    """

    steps: int | Mapping[str, int] = 1
    clock: LatencyModel | None = None
    table: LatencyTable | None = None
    can_check: bool = True

    def finer(self) -> Timing | None:
        """Return a copy with steps half as large, or None if no group has a step to halve."""
        if isinstance(self.steps, int) or max(self.steps.values(), default=1) == 1:
            return None
        halves = {name: max(1, step // 2) for name, step in self.steps.items()}
        return replace(self, steps=halves)


def timing_of(
    trace: Trace,
    network: Network,
    original: Original,
    options: Options,
    stopwatch: Stopwatch,
    *,
    with_clock: bool,
) -> Timing:
    """Time the network's layers, by a given table or by the target's, which is completed.

    Args:
        trace: The traced network.
        network: Its analysis.
        original: Its ONNX file is timed, so that predictions are in its milliseconds.
        options: What was asked for.
        stopwatch: Is told of stages and notes.
        with_clock: Whether the latency of any choice is to be predicted.

    Raises:
        UsageError: The runtime does not run on the device, or the program not with the batch.
        CompressorError: A table cannot be read, or a layer cannot be timed.
    """
    by_table = options.round_to == "auto" and options.scores
    if by_table and not with_clock and options.format and not is_run(options.format):
        return Timing({name: _usual_step(axis.size) for name, axis in network.axes.items()})
    if not by_table and not with_clock:
        return Timing(_fix_steps(options))
    stage = "time layers" if with_clock else "which widths run well"
    with stopwatch.stage(stage) as tick:
        is_asked = is_timed(options) or trace.batch_symbol is not None
        target = _Target(options, options.batch if is_asked else trace.batch)
        layers = layers_of(trace, network, target.batch)
        table = target.table(layers, tick, stopwatch, complete=with_clock)
        steps = _steps(layers, table, network, options) if by_table else _fix_steps(options)
        if not with_clock:
            return Timing(steps, table=table)
        clock = LatencyModel(layers, table)
        can_check = target.can_check(table)
        if options.latency_on in LAYERS_ON:
            title = FORMATS[options.latency_on].backends[options.latency_on]
            stopwatch.note(
                f"{title} keeps no record of its operators: single layers have the times of ONNX "
                f"Runtime, and whole networks are timed by {title}"
            )
        if can_check and (by_torch(options) or not original.why_no_onnx):
            tick(1, 1, "the whole network")
            clock = clock.fit(of_the_first(lambda: _own(original, options)))
        tick(1, 1, f"{clock.latency_ms({}):.4g} ms")
    return Timing(steps, clock, table, can_check)


def _usual_step(size: int) -> int:
    """Return the step of a group's widths for machines of which nothing is known."""
    return USUAL_STEP if size > NARROW else 1


def _fix_steps(options: Options) -> int:
    return 1 if options.round_to == "auto" else options.round_to


def _steps(
    layers: tuple[Layer, ...], table: LatencyTable, network: Network, options: Options
) -> dict[str, int]:
    by_axis = width_steps(layers, table, network.axes.values())
    free = NARROW if is_timed(options) else 0
    return {n: 1 if axis.size <= free else by_axis[axis] for n, axis in network.axes.items()}


def _own(original: Original, options: Options) -> float:
    runnable = original.runnable(format_there(options))
    return time_networks({"original": runnable}, options, FIT_SECONDS)["original"].own_ms


def by_torch(options: Options) -> bool:
    """Return whether PyTorch runs networks on the target; else ONNX Runtime does."""
    return options.latency_on.startswith(TORCH)


def format_there(options: Options) -> str:
    """Return the word of the format that the target runs."""
    if by_torch(options):
        return PROGRAM
    return options.latency_on if options.latency_on in TARGETS else ONNX


def aim(options: Options, stopwatch: Stopwatch) -> Options:
    """Replace the target "cuda" by what it stands for on this machine, and note it.

    It is PyTorch where the installed ONNX Runtime has no CUDA, or where the precision is one that
    PyTorch alone computes in.
    """
    is_open = options.latency_on == "cuda" and options.latency_table is None
    if not is_open or not torch.cuda.is_available():
        return options
    if has_provider("cuda") and options.latency_precision == "fp32":
        return options
    stopwatch.note(
        "latency is PyTorch's, with CUDA graphs (--latency-on torch-cuda): "
        + (
            f"ONNX Runtime does not compute in {options.latency_precision}"
            if has_provider("cuda")
            else "this ONNX Runtime has no CUDA"
        )
    )
    return replace(options, latency_on="torch-cuda")


def time_networks(
    networks: Mapping[str, Runnable], options: Options, seconds: float
) -> dict[str, Latency]:
    """Time networks against each other on the threads, batch and target of the options."""
    found = turns(networks, options, seconds)
    return {name: each.latency for name, each in found.items()}


def turns(networks: Mapping[str, Runnable], options: Options, seconds: float) -> dict[str, Timed]:
    """Time networks as `time_networks` does, and return the times of every turn too.

    Raises:
        CompressorError: PyTorch is to run a mere ONNX file; another machine cannot be reached.
    """
    how: dict[str, Any] = {"threads": options.threads, "batch": options.batch, "seconds": seconds}
    files = {name: each for name, each in networks.items() if isinstance(each, Path)}
    if options.host is not None:
        return measure_turns_on(options.host, files, **how)
    if options.latency_on in TARGETS:
        return time_files(options.latency_on, files, device="cpu", **how)
    if not by_torch(options):
        return measure_turns(files, device=options.latency_on, **how)
    if files:
        raise CompressorError(
            "PyTorch runs no ONNX files",
            where=next(iter(files)),
            consequence="it was not timed",
            next_step="time with ONNX Runtime: --latency-on cpu",
        )
    programs = {n: each for n, each in networks.items() if isinstance(each, ExportedProgram)}
    device = options.latency_on
    return measure_programs(programs, device=device, precision=options.latency_precision, **how)


def _words_of_noise(table: LatencyTable, layers: Iterable[Layer]) -> str:
    """Return a sentence about what the table has of a busy machine; "" where there is nothing."""
    noisy = set(table.noisy)
    blurred = [*table.unsettled, *(layer.name for layer in layers if layer.signature in noisy)]
    if not blurred:
        return ""
    return (
        f"the machine does other work: {some_of(sorted(blurred))} took another time whenever "
        "measured, so that the choice of widths may not be the best; these times are not kept "
        "(measure again when the machine is idle)"
    )


@dataclass(frozen=True)
class _Target:
    """The runtime settings that times are measured for."""

    options: Options
    batch: int

    def table(
        self,
        layers: tuple[Layer, ...],
        tick: Tick,
        stopwatch: Stopwatch,
        *,
        complete: bool,
    ) -> LatencyTable:
        """Return a latency table with the times of all layers, or with the widths' steps alone."""
        options = self.options
        if options.latency_table is not None:
            covered = layers if complete else ()
            return read_given_table(Path(options.latency_table), covered, self._setting)
        if (device := self._setting.device) in PROVIDERS:
            check_provider(device)
        with self._file(stopwatch) as path:
            how: dict[str, Any] = {"steps_alone": not complete, "path": path, "progress": tick}
            table = of_the_first(lambda: self._measure(layers, how))
        if noise := _words_of_noise(table, layers):
            stopwatch.note(noise)
        return table

    def _measure(self, layers: tuple[Layer, ...], how: dict[str, Any]) -> LatencyTable:
        host = self.options.host
        if host is None:
            return measure_table(layers, self._setting, **how)
        with bench_on(host, self.options.threads) as bench:
            return measure_table(layers, self._setting, bench=bench, **how)

    def can_check(self, table: LatencyTable) -> bool:
        """Return whether networks can be timed where the table holds."""
        return self.options.latency_table is None or dict(table.machine) == self._setting.machine

    @property
    def _setting(self) -> Setting:
        options = self.options
        device = LAYERS_ON.get(options.latency_on, options.latency_on)
        where = device, options.latency_precision
        there = ask_target(options.host).machine if options.host is not None else None
        return Setting(options.threads, self.batch, *where, there)

    @contextmanager
    def _file(self, stopwatch: Stopwatch) -> Iterator[Path]:
        """Yield the path of the cached table, or of a temporary file where none can be kept."""
        path = path_in_cache(self._setting.machine)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=path.parent).close()
        except OSError as error:
            why = error.strerror or error
            stopwatch.note(f"measured times are not kept: {path.parent} cannot be written ({why})")
            with temporary_folder() as folder:
                yield folder / path.name
        else:
            yield path
