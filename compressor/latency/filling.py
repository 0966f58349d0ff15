"""Fill a table by the bench, layer by layer; what is measured is kept at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from compressor.errors import UsageError
from compressor.files.format_table import OPENVINO
from compressor.latency.latency_table import LatencyTable, read_table, write_table
from compressor.latency.layer_bench import Bench, Case, OnnxBench
from compressor.latency.layers import Layer
from compressor.latency.machine import Setting, path_in_cache
from compressor.latency.measured_steps import measure_step
from compressor.latency.noise import agree, noise_of
from compressor.latency.openvino_bench import OpenVinoBench
from compressor.latency.points import Point
from compressor.latency.torch_bench import TorchBench
from compressor.torch_calls import TORCH

Progress = Callable[[int, int, str], None]
"""A function that shows progress: `progress(done, total, text)`."""

LOOKS, MOST_LOOKS = 3, 8
"""How often each layer is timed, some time after the last time; more often where looks differ.

What else the machine does at the time makes a layer seem slower, never faster, so the least counts.
"""

_TOGETHER = 32  # layers whose networks are in memory at a time


def measure_table(
    layers: Iterable[Layer],
    setting: Setting = Setting(),  # noqa: B008 (frozen)
    *,
    steps_alone: bool = False,
    bench: Bench | None = None,
    path: Path | None = None,
    progress: Progress = lambda done, total, text: None,
) -> LatencyTable:
    """Return this machine's table with all that the layers need; what it lacks is measured.

    What two looks agree on is written at once, so that an interrupted run goes on where it was.
    What none do, since the machine does other work, is in the table that is returned and not in the
    file (`LatencyTable.noisy`, `unsettled`): later runs measure it anew.

    Args:
        layers: The network's layers, for the setting's batch.
        setting: What the times hold for; each setting has a table of its own.
        steps_alone: Measure only in which steps widths run well: a few seconds per kind of layer,
            once.
        bench: What times the layers. Default: ONNX Runtime on the device, or PyTorch where its name
            says so.
        path: The table's file. Default: in the user's cache folder.
        progress: Told `(done, total, text)`.

    Raises:
        UsageError: The runtime does not run on the device; the file is of another machine.
        CompressorError: The file is no table or cannot be written; a layer does not run.
    """
    distinct = {layer.signature: layer for layer in layers}
    machine = setting.machine
    path = path or path_in_cache(machine)
    table = read_table(path) if path.exists() else LatencyTable(machine)
    _check_same(table.machine, machine, path)
    bench = bench or _bench_for(setting)
    if steps_alone:
        fuller = _with_steps(table, distinct, bench, progress)
    else:
        fuller = _fill(table, distinct, bench, progress)
    for table in fuller:
        write_table(table.steady(), path)
    return table


def _bench_for(setting: Setting) -> Bench:
    if setting.device.startswith(TORCH):
        return TorchBench(setting.device, setting.precision, setting.threads)
    if setting.device == OPENVINO:
        return OpenVinoBench(setting.threads)
    return OnnxBench(setting.threads, setting.device)


def _check_same(measured_on: Mapping[str, Any], machine: Mapping[str, Any], path: Path) -> None:
    """Raise UsageError where a table is of another machine: its times compare with no others."""
    if dict(measured_on) != dict(machine):
        other = [name for name in machine if measured_on.get(name) != machine[name]]
        raise UsageError(
            f"the latency table is of another {', '.join(other) or 'machine'}",
            where=str(path),
            consequence="nothing was measured; the table is untouched",
            next_step="give another file to measure into",
        )


def read_given_table(
    path: Path,
    layers: Iterable[Layer],
    setting: Setting = Setting(),  # noqa: B008 (frozen)
) -> LatencyTable:
    """Read a table that was measured elsewhere and has all that the layers need.

    Args:
        path: The table's file.
        layers: The network's layers, for the setting's batch.
        setting: What the times must hold for.

    Raises:
        UsageError: It holds for another number of threads, batch, device or precision.
        CompressorError: It cannot be read, or lacks layers of the network.
    """
    table = read_table(path)
    asked = {"threads": setting.threads, "batch": setting.batch, "device": setting.device}
    if "dtype" in table.machine:
        asked["dtype"] = setting.machine["dtype"]
    other = [
        f"{name} {table.machine.get(name)}, not {value}"
        for name, value in asked.items()
        if str(table.machine.get(name)).partition(" ")[0] != str(value)
    ]
    if other:
        raise UsageError(
            f"the latency table was measured for {'; '.join(other)}",
            where=str(path),
            consequence="no latency was predicted",
            next_step="ask for what it was measured for, or give another table",
        )
    table.check_covers(layers, str(path))
    return table


def _with_steps(
    table: LatencyTable,
    layers: Mapping[str, Layer],
    bench: Bench,
    progress: Progress,
    more: int = 0,
) -> Iterator[LatencyTable]:
    """Measure the steps that the table lacks, and yield the table after each.

    Args:
        table: What is known; not changed.
        layers: By signature.
        bench: What times them.
        progress: Told of each step.
        more: How much is measured afterwards, for the progress display.
    """
    # One sample is too little for a GPU: whatever the width, the time is that of being called.
    is_gpu = str(table.machine.get("device")).startswith(f"{TORCH}cuda")
    samples = int(table.machine["batch"]) if is_gpu else 1
    kinds = dict.fromkeys(layer.kind for layer in layers.values())
    unstepped = [(kind, name) for kind in kinds for name in table.lacks_steps(kind)]
    for done, (kind, name) in enumerate(unstepped):
        progress(done, len(unstepped) + more, f"steps of {kind}: {name}")
        step, is_settled = measure_step(kind, name, bench, samples)
        table = table.with_step(kind, name, step, is_settled=is_settled)
        yield table


def _fill(
    table: LatencyTable, layers: Mapping[str, Layer], bench: Bench, progress: Progress
) -> Iterator[LatencyTable]:
    """Measure all that the table lacks; yield the table after each step and look at a layer."""
    steps = 0
    for fuller in _with_steps(table, layers, bench, progress, LOOKS * len(layers)):
        table, steps = fuller, steps + 1
        yield table
    missing = {name: points for name, layer in layers.items() if (points := table.lacks(layer))}
    total, looks = steps + LOOKS * len(layers), {name: list[float]() for name in missing}
    done = itertools.count(total - LOOKS * len(missing))
    for number in range(MOST_LOOKS):
        blurred = [name for name in missing if number < LOOKS or not agree(looks[name])]
        for name in blurred:
            progress(min(next(done), total), total, f"{layers[name].name} ({layers[name].kind})")
            times = _times(layers[name], missing[name], bench)
            looks[name].append(sum(times.values()))
            table = table.with_times(name, times, noise_of(looks[name]))
            yield table
    progress(total, total, "")


def _times(layer: Layer, points: Sequence[Point], bench: Bench) -> dict[Point, float]:
    """Return the milliseconds of a layer at some points."""
    rounds, times = -(-len(points) // _TOGETHER), dict[Point, float]()
    for first in range(rounds):
        # Each round has small points and large ones.
        chosen = points[first::rounds]
        sizes = [layer.full | dict(zip(layer.free, point, strict=True)) for point in chosen]
        cases = [Case(layer.kind, each, layer.literals) for each in sizes]
        times |= dict(zip(chosen, bench.times_ms(cases), strict=True))
    return times
