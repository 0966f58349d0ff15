"""Time the trials' networks against the dense original.

They are timed one after the other when nothing else runs, each taking turns with the original.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from compressor.errors import CompressorError
from compressor.latency.machine import machine_of
from compressor.options import Options
from compressor.run.timing import time_networks
from compressor.studies.sweep.carrying_out import Task
from compressor.studies.sweep.store import Store
from compressor.watch import Stopwatch

SECONDS = 1.0
"""Seconds that each network and the original are timed for together."""


def way_of(options: Options) -> dict[str, Any]:
    """Return the machine and the runtime settings that networks are timed with."""
    return machine_of(options.threads, options.batch, options.latency_on, options.latency_precision)


def time_all(
    tasks: Sequence[Task], dense: Task, options: Options, store: Store, stopwatch: Stopwatch
) -> dict[str, Mapping[str, Any]]:
    """Time the tasks' networks; what was timed in this way before is not timed again.

    What cannot be timed is noted and left out.

    Returns:
        The task's key -> milliseconds of one call, the original's beside it, and how many times
        faster.
    """
    way, times = way_of(options), dict[str, Mapping[str, Any]]()
    missing = []
    for task in tasks:
        kept = store.latency(task.key, way)
        if kept is None:
            missing.append(task)
        else:
            times[task.key] = kept
    if not missing:
        return times
    with stopwatch.stage("measure latency") as tick:
        for done, task in enumerate(missing):
            tick(done, len(missing), task.trial.words)
            if not (store.onnx(task.key).exists() and store.onnx(dense.key).exists()):
                continue
            try:
                times[task.key] = _time(task, dense, options, store, way)
            except CompressorError as error:
                stopwatch.note(f"{task.trial.words} was not timed: {error.what}")
                continue
            store.keep_latency(task.key, times[task.key])
        tick(len(missing), len(missing), "")
    return times


def _time(
    task: Task, dense: Task, options: Options, store: Store, way: Mapping[str, Any]
) -> dict[str, Any]:
    files = {"dense": store.onnx(dense.key), "own": store.onnx(task.key)}
    times = time_networks(files, options, SECONDS)
    return {
        "way": dict(way),
        "latency_ms": times["own"].own_ms,
        "dense_latency_ms": times["dense"].own_ms,
        "measured_speedup": times["dense"].own_ms / times["own"].own_ms,
    }
