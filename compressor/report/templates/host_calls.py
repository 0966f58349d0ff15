"""Measures on another machine for `compress --on`, where it lies beside bench.py, which it calls.

Needs Python >= 3.8, onnxruntime and numpy. Every function takes `tick(done, total)` and returns
what JSON can say.
"""

import base64
import functools
import os
import time
from pathlib import Path

import bench

CPU = "CPUExecutionProvider"
ALLOWED = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


def describe_machine(tick):
    threads = os.cpu_count() if ALLOWED is None else len(ALLOWED)
    return {"machine": bench.describe_machine(), "threads": threads}


def by_wall_and_processor(call):
    """Milliseconds of one call: those that passed, and those of the processor in this thread."""
    wall, processor = time.perf_counter(), time.thread_time()
    call()
    spent = time.perf_counter() - wall, time.thread_time() - processor
    return [1000 * spent[0], 1000 * spent[1]]


def take_turns(networks, threads, batch, seconds, tick):
    """Both times of each call, by network and turn; the turns are short, three at least."""
    calls = bench.open_calls(networks, threads, batch, CPU)
    times = {name: [] for name in calls}
    turn_seconds = min(0.02, seconds / max(1, 6 * len(calls)))
    for call in calls.values():
        call()
    for _ in bench.repeat(seconds, 3):
        for name, call in calls.items():
            times[name].append(bench.take_turn(call, turn_seconds, by_wall_and_processor))
    return times


def time_in_rounds(networks, threads, batch, seconds, tick):
    """Milliseconds of each call, by network and round, on as many processors as threads."""
    if ALLOWED is not None:
        os.sched_setaffinity(0, sorted(ALLOWED)[:threads])
    try:
        return bench.time_in_turns(bench.open_calls(networks, threads, batch, CPU), seconds, tick)
    finally:
        if ALLOWED is not None:
            os.sched_setaffinity(0, ALLOWED)


def record_operators(network, threads, batch, tick):
    """Name, kind and milliseconds of every call of each operator of a network."""
    return bench.record_operators(Path(network), threads, batch, CPU)


def time_layers(networks, threads, beside, tick):
    """Milliseconds of layers, each a network in base64; they take turns call by call."""
    coded = [base64.b64decode(text) for text in networks]
    return list(bench.time_turns_of_layers(coded, threads, beside, share_memory()))


@functools.lru_cache(maxsize=None)  # noqa: UP033 (Python 3.8 has no other)
def share_memory():
    return bench.share_memory()
