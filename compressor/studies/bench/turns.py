"""Time networks in processes of their own that take turns."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from typing import Any, Protocol

from compressor.clock import repeat
from compressor.errors import CompressorError
from compressor.files.format_table import FORMATS, format_of
from compressor.latency.statistics import Rounds, ratio_of, summary_of
from compressor.python_path import environment
from compressor.runtimes.ways import Way
from compressor.studies.bench.entrants import Entrant
from compressor.watch import Tick

ROUNDS, LEAST = 15, 5
"""How many turns each network gets; slow ones, which would take twice their seconds, get fewer."""

AGAIN = "again"
"""The name of the baseline's second process, whose times show the noise."""


class _Process:
    """A worker process that times one network; it is asked, and answers, by lines of JSON."""

    def __init__(self, name: str, asked: Mapping[str, Any]) -> None:
        self.name = name
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "compressor.runtimes.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**environment(), "OMP_NUM_THREADS": str(asked["way"]["threads"])},
        )
        self._ask(json.dumps(dict(asked)))

    def wait_until_ready(self) -> None:
        """Raise `CompressorError` if the network does not run."""
        self._answer()

    def round(self, seconds: float) -> dict[str, Any]:
        self._ask(str(seconds))
        return self._answer()

    def end(self) -> None:
        self._popen.kill()
        self._popen.communicate()

    def _ask(self, line: str) -> None:
        assert self._popen.stdin is not None
        with suppress(BrokenPipeError):  # it has ended: no answer will come, which is said
            self._popen.stdin.write(line + "\n")
            self._popen.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "its process ended"}
        if "error" in answer:
            self.end()
            raise CompressorError(
                f"the network does not run: {answer['error']}",
                where=self.name,
                consequence="it was not timed in this way",
                next_step="try another --backend or --batch, or run it by hand",
            )
        return answer


@contextmanager
def _running(name: str, asked: Mapping[str, Any]) -> Iterator[_Process]:
    process = _Process(name, asked)
    try:
        process.wait_until_ready()
        yield process
    finally:
        process.end()


def time_entrants(
    entrants: Sequence[Entrant],
    way: Way,
    *,
    seconds: float = 6.0,
    seed: int = 0,
    tick: Tick = lambda done, total, text: None,
) -> list[dict[str, Any]]:
    """Time the networks in one way, and return one record per network.

    A record has the milliseconds of a call, how many times faster the network is than the first one
    (with an interval), samples per second and peak memory in MB. The first one's ratio is to itself
    in a second process: the noise.

    Args:
        entrants: The networks; the first one is the baseline.
        way: Backend, device, threads and batch.
        seconds: How long all processes together are timed; each has five turns at least.
        seed: Seed of the random inputs and of the intervals.
        tick: Told of each turn.

    Raises:
        CompressorError: A network does not run in this way.
    """
    with ExitStack() as stack:
        processes = []
        for number, entrant in enumerate([*entrants, entrants[0]]):
            tick(0, ROUNDS, f"starting {entrant.name}")
            file, runner = entrant.file_for(way.backend), FORMATS[format_of(way.backend)].runner
            asked = {"way": asdict(way), "file": str(file), "runner": runner, "seed": seed}
            name = entrant.name if number < len(entrants) else AGAIN
            processes.append(stack.enter_context(_running(name, asked)))
        names = [entrant.name for entrant in entrants]
        return in_turns(names, processes, way, seconds=seconds, seed=seed, tick=tick)


class Contestant(Protocol):
    """What takes turns: a network that is ready to run."""

    def round(self, seconds: float) -> Mapping[str, Any]:
        """Take a turn; return "ms", the milliseconds of each call, and "peak_mb", its memory."""


def in_turns(
    names: Sequence[str],
    contestants: Sequence[Contestant],
    way: Way,
    *,
    seconds: float,
    seed: int,
    tick: Tick = lambda done, total, text: None,
) -> list[dict[str, Any]]:
    """Let networks take turns, and return a record per name, as `compared` does.

    The last contestant is the first one again, which shows the noise.
    """
    rounds: list[list[list[float]]] = [[] for _ in contestants]
    peaks = [0.0] * len(contestants)
    turn = seconds / ROUNDS / len(contestants)
    for done in repeat(2 * seconds, LEAST, ROUNDS):
        tick(done, ROUNDS, way.words)
        order = range(len(contestants)) if done % 2 == 0 else reversed(range(len(contestants)))
        for number in order:
            answer = contestants[number].round(turn)
            rounds[number].append(answer["ms"])
            peaks[number] = max(peaks[number], answer["peak_mb"])
    tick(ROUNDS, ROUNDS, "")
    return records_of(names, rounds, peaks, way, seed=seed)


def records_of(
    names: Sequence[str],
    rounds: Sequence[Rounds],
    peaks: Sequence[float | None],
    way: Way,
    *,
    seed: int,
) -> list[dict[str, Any]]:
    """Return a record per name, as `time_entrants` does.

    Args:
        names: The networks, the baseline first.
        rounds: Milliseconds of each call by network and round; the baseline's second turns last.
        peaks: The most memory that each process had, in MB; None where it is not known.
        way: In which they were run.
        seed: Of the ratios' intervals.
    """
    against = [rounds[-1], *rounds[1:-1]]
    return [
        _record(name, way, rounds[0], own, other, peak, seed)
        for name, own, other, peak in zip(names, rounds, against, peaks, strict=False)
    ]


def _record(
    name: str,
    way: Way,
    baseline: Rounds,
    own: Rounds,
    other: Rounds,
    peak: float | None,
    seed: int,
) -> dict[str, Any]:
    summary = summary_of(own)
    return {
        "name": name,
        **asdict(way),
        "ms": asdict(summary),
        "faster": asdict(ratio_of(baseline, other, seed)),
        "samples_per_s": 1000 * way.batch / summary.p50,
        "peak_mb": peak,
    }
