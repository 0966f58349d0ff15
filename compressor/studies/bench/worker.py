"""Time one network in a process of its own: `python -m compressor.studies.bench.worker`.

It reads a JSON line with what to run, answers with a JSON line when it is ready, then answers every
line (seconds of a round) with the milliseconds of its calls. A line with 0 ends it.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from compressor.clock import Call, Clock, by_wall, take_turn, warm_up


def _onnxruntime(asked: Mapping[str, Any]) -> tuple[Call, Clock]:
    from compressor.onnx_runtime import draw_inputs, make_call, open_session

    session = open_session(Path(asked["file"]), asked["threads"], asked["device"])
    feeds = draw_inputs(session, asked["batch"], asked["seed"])
    return make_call(session, feeds, asked["device"]), by_wall


def _torch(asked: Mapping[str, Any]) -> tuple[Call, Clock]:
    import torch

    from compressor.studies.bench.programs import call_of
    from compressor.studies.bench.ways import Way
    from compressor.torch_calls import clock_of, computing_in

    torch.set_num_threads(asked["threads"])
    way = Way(**{name: asked[name] for name in Way.__dataclass_fields__})
    computing_in(way.precision).__enter__()  # to the end of this process
    return call_of(asked["file"], way, asked["seed"]), clock_of(way.device)


BACKENDS: Mapping[str, Callable[[Mapping[str, Any]], tuple[Call, Clock]]] = {
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


def serve(lines: TextIO, answers: TextIO) -> None:
    """Read what to run, then answer requests for timed rounds until the lines end."""

    def answer(value: Any) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    asked = json.loads(lines.readline())
    try:
        if asked["device"] == "cpu":
            _pin(asked["threads"])
        call, clock = BACKENDS[asked["backend"]](asked)
        warm_up(partial(clock, call))
    except Exception as error:  # whatever the backend's library raises: the parent says it
        answer({"error": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"})
        return
    answer({"ready": True})
    while seconds := float(lines.readline() or 0):
        answer({"ms": take_turn(call, seconds, clock), "peak_mb": peak_mb()})


def main() -> None:
    """Serve standard input and output; what libraries print goes to standard error instead."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
