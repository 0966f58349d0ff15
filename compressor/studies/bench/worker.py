"""Time one network in a process of its own: `python -m compressor.studies.bench.worker`.

It reads a JSON line with what to run, answers with a JSON line when it is ready, then answers every
line (seconds of a round) with the milliseconds of its calls. A line with 0 ends it.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TextIO

Call = Callable[[], float]
"""Runs the network once, and returns the milliseconds that it took."""

WARM_UP_SECONDS, WARM_UP_CALLS = 0.5, 5


def _onnxruntime(asked: Mapping[str, Any]) -> Call:
    import numpy as np
    import onnxruntime as ort

    from compressor.onnx_runtime import PROVIDERS, bound_call, options_of, random_input

    providers = [PROVIDERS[asked["device"]]]
    options = options_of(asked["threads"])
    session = ort.InferenceSession(asked["file"], options, providers=providers)
    rng = np.random.default_rng(asked["seed"])
    feeds = {s.name: random_input(s, asked["batch"], rng) for s in session.get_inputs()}
    if asked["device"] != "cpu":
        return _by_the_clock(bound_call(session, feeds, asked["device"]))
    return _by_the_clock(lambda: session.run(None, feeds))


def _torch(asked: Mapping[str, Any]) -> Call:
    import torch

    from compressor.studies.bench.programs import call_of
    from compressor.studies.bench.ways import Way
    from compressor.torch_calls import clock_of, computing_in

    torch.set_num_threads(asked["threads"])
    way = Way(**{name: asked[name] for name in Way.__dataclass_fields__})
    computing_in(way.precision).__enter__()  # to the end of this process
    return partial(clock_of(way.device), call_of(asked["file"], way, asked["seed"]))


def _by_the_clock(call: Callable[[], object]) -> Call:
    def timed() -> float:
        begin = time.perf_counter()
        call()
        return 1000 * (time.perf_counter() - begin)

    return timed


BACKENDS: Mapping[str, Callable[[Mapping[str, Any]], Call]] = {
    "onnxruntime": _onnxruntime,
    **dict.fromkeys(("torch", "torch-compiled", "torch-graphs"), _torch),
}


def _pin(threads: int) -> None:
    """Pin this process to as many processors as there are threads, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[:threads])


def peak_mb() -> float:
    """Return the most memory that this process ever had, in MB."""
    # Linux counts the parent's memory in getrusage, so its own file is read first.
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):
            return float(line.split()[1]) / 2**10
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def warm_up(call: Call, seconds: float = WARM_UP_SECONDS) -> None:
    end, calls = time.perf_counter() + seconds, 0
    while calls < WARM_UP_CALLS or time.perf_counter() < end:
        call()
        calls += 1


def round_of(call: Call, seconds: float) -> list[float]:
    """Call the network for some seconds, and return the milliseconds of each call."""
    call()
    # The call above is not timed: it finds another process's data in the caches.
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        times.append(call())
    return times


def serve(lines: TextIO, answers: TextIO) -> None:
    """Read what to run, then answer requests for timed rounds until the lines end."""

    def answer(value: Any) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    asked = json.loads(lines.readline())
    try:
        if asked["device"] == "cpu":
            _pin(asked["threads"])
        call = BACKENDS[asked["backend"]](asked)
        warm_up(call)
    except Exception as error:  # whatever the backend's library raises: the parent says it
        answer({"error": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"})
        return
    answer({"ready": True})
    while seconds := float(lines.readline() or 0):
        answer({"ms": round_of(call, seconds), "peak_mb": peak_mb()})


def main() -> None:
    """Serve standard input and output; what libraries print goes to standard error instead."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
