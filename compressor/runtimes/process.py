"""Time one network in a process of its own: `python -m compressor.runtimes.process`.

It reads a JSON line with what to run, answers with a JSON line when it is ready, then answers every
line (seconds of a round) with the milliseconds of its calls. A line with 0 ends it.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from compressor.clock import take_turn, warm_up
from compressor.runtimes.starting import start_in
from compressor.runtimes.ways import Way


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
        way = Way(**asked["way"])
        if way.device == "cpu":
            _pin(way.threads)
        start = start_in(asked["runner"])
        call, clock = start(Path(asked["file"]), way, asked["seed"])
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
