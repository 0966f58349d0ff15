"""Time networks in a format by the runtime that it is for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from compressor.files.format_table import FORMATS, ONNX, PROGRAM
from compressor.latency.networks import Timed, measure_calls
from compressor.runtimes.starting import start_in
from compressor.runtimes.ways import Way


def formats_with_a_runtime(names: tuple[str, ...]) -> list[str]:
    """Return those of some formats that neither ONNX Runtime nor PyTorch runs."""
    return [name for name in names if name not in (ONNX, PROGRAM) and FORMATS[name].backends]


def time_files(
    name: str,
    files: Mapping[str, Path],
    *,
    threads: int,
    batch: int,
    device: str,
    seconds: float,
) -> dict[str, Timed]:
    """Time a format's files against each other, in turns, as its first backend runs them.

    Args:
        name: The format's word in the table.
        files: Name -> file of that format.
        threads: Threads within one operator.
        batch: Samples of a call.
        device: Where they run.
        seconds: How long to measure, all files together.

    Raises:
        CompressorError: A file does not run so.
    """
    runtime = next(iter(FORMATS[name].backends))
    way, start = Way(runtime, device, threads, batch), start_in(FORMATS[name].runner)
    started = {each: start(path, way, 0) for each, path in files.items()}
    (clock,) = {clock for _, clock in started.values()}
    calls = {each: call for each, (call, _) in started.items()}
    how = {"threads": threads, "batch": batch}
    return measure_calls(calls, runtime=runtime, clock=clock, device=device, seconds=seconds, **how)
