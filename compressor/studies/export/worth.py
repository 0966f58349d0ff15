"""Measure what the exported files are worth and how long they take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from compressor.files.format_table import ONNX
from compressor.loading.data import batches
from compressor.machine import cores
from compressor.metrics import TOP1
from compressor.records import Latency
from compressor.run.subject import measure_named
from compressor.studies.export.conversions import EXPORTED
from compressor.studies.export.source import Source
from compressor.watch import Stopwatch

LATENCY_SECONDS = 3.0
POINTS = 0.02
"""A loss of accuracy above this share is pointed out."""


def runnable_of(
    files: Mapping[str, Path], stopwatch: Stopwatch, format: str = ONNX
) -> dict[str, Path]:
    """Return the files that their runtime can call here, and note those that it cannot.

    The first file is taken for one, since it was called already.
    """
    first, survives = next(iter(files)), EXPORTED[format].survives
    found = {name: path for name, path in files.items() if name == first or survives(path)}
    for name in files.keys() - found.keys():
        stopwatch.note(
            f"ONNX Runtime breaks down on this processor when it runs {name} with all of its "
            "optimisations: it was compared without them, and neither evaluated nor timed"
        )
    return found


def metrics_of(
    source: Source, files: Mapping[str, Path], stopwatch: Stopwatch
) -> dict[str, dict[str, float]]:
    """Measure the metric of each file on the test data, and note a large loss against the first.

    Returns:
        Per file the metric by its name, fidelity against the first file; nothing where there are
        no data, which is noted.
    """
    if source.test is None:
        stopwatch.note("no --test or --data: no metric is measured")
        return {name: {} for name in files}
    measure, found = measure_named(source.options.metric, source.test), {}
    whole = batches(source.test, source.options.batch_size)
    opened = EXPORTED[source.options.format].module
    original = opened(next(iter(files.values())), source.inputs)
    for name, path in files.items():
        with stopwatch.stage(f"evaluate {name}") as tick:
            module = opened(path, source.inputs)
            found[name] = measure.all_of(module, whole, original=original, progress=tick)
            tick(1, 1, f"{measure.name} {found[name][measure.name]:.4f}")
    title = measure.name
    first = next(iter(found.values()))[title]
    for name, values in found.items():
        if title == TOP1 and first - values[title] > POINTS:
            lost = 100 * (first - values[title])
            stopwatch.note(f"{name} loses {lost:.1f} points of accuracy; compare before you deploy")
    return found


def latencies_of(
    files: Mapping[str, Path], batch: int, stopwatch: Stopwatch, format: str = ONNX
) -> dict[str, list[Latency]]:
    """Measure the latency of each file, with one thread and with all; the files take turns.

    Args:
        files: By name.
        batch: Samples in a call.
        stopwatch: Shows progress.
        format: Of the files.

    Returns:
        Per file one latency for each number of threads.
    """
    found: dict[str, list[Latency]] = {name: [] for name in files}
    ways = sorted({1, cores()})
    with stopwatch.stage("measure latency") as tick:
        for done, threads in enumerate(ways):
            tick(done, len(ways), f"{threads} threads" if threads > 1 else "1 thread")
            asked = {"threads": threads, "batch": batch, "seconds": LATENCY_SECONDS}
            for name, timed in EXPORTED[format].time(files, **asked).items():
                found[name].append(timed.latency)
    return found
