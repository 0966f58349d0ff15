"""Where networks are timed: on this machine, or on another one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from compressor.files.format_table import format_of
from compressor.latency.machine import machine_of, this_machine
from compressor.latency.on_host import NetworksThere, Target, ask_target, networks_on
from compressor.latency.operators import Operator, profile
from compressor.options import BenchOptions
from compressor.runtimes.ways import Way, ways_of
from compressor.studies.bench.entrants import Entrant
from compressor.studies.bench.turns import records_of, time_entrants
from compressor.watch import Tick

_AGAIN = "again"


class Place(Protocol):
    """A machine that has the networks."""

    def ways(self, options: BenchOptions) -> list[Way]:
        """Return the ways to run them."""

    def time(self, way: Way, seconds: float, tick: Tick) -> list[dict[str, Any]]:
        """Time them in a way, and return one record per network, as `time_entrants` does."""

    def profiles(self) -> list[list[Operator]]:
        """Return the operators of each with their times; none where there is no ONNX file."""

    def described(self) -> dict[str, Any]:
        """Return what the result says of the machine."""


@dataclass(frozen=True)
class _Here:
    entrants: Sequence[Entrant]

    def ways(self, options: BenchOptions) -> list[Way]:
        asked = (options.backend, options.device, options.threads, options.batch)
        return ways_of(*asked, options.precision)

    def time(self, way: Way, seconds: float, tick: Tick) -> list[dict[str, Any]]:
        return time_entrants(self.entrants, way, seconds=seconds, tick=tick)

    def profiles(self) -> list[list[Operator]]:
        files = [entrant.files.get(format_of("onnxruntime")) for entrant in self.entrants]
        return [profile(file) if file is not None else [] for file in files]

    def described(self) -> dict[str, Any]:
        return {"machine": machine_of(1, 1, "cpu")}


@dataclass(frozen=True)
class _There:
    names: Sequence[str]
    target: Target
    networks: NetworksThere

    def ways(self, options: BenchOptions) -> list[Way]:
        threads = options.threads or tuple(dict.fromkeys((1, self.target.threads)))
        asked = (options.backend, options.device, threads, options.batch, options.precision)
        return ways_of(*asked, self.target.machine["host"])

    def time(self, way: Way, seconds: float, tick: Tick) -> list[dict[str, Any]]:
        how: dict[str, Any] = {"threads": way.threads, "batch": way.batch, "seconds": seconds}
        rounds = self.networks.time_in_rounds(**how, tick=tick)
        # all in one process: how much memory each needs is not known
        return records_of(self.names, [*rounds.values()], [None] * len(rounds), way, seed=0)

    def profiles(self) -> list[list[Operator]]:
        return [self.networks.profile(name) for name in self.networks.files if name != _AGAIN]

    def described(self) -> dict[str, Any]:
        target: Mapping[str, Any] = self.target.machine
        return {"machine": {**machine_of(1, 1, "cpu"), **target}, "here": this_machine()}


@contextmanager
def place_of(entrants: Sequence[Entrant], options: BenchOptions) -> Iterator[Place]:
    """Yield the machine that times the networks; another one has them while the block lasts.

    Raises:
        CompressorError: It cannot be reached, or has no room for them.
    """
    if options.host is None:
        yield _Here(entrants)
        return
    target = ask_target(options.host)
    files = {str(n): entrant.file_for("onnxruntime") for n, entrant in enumerate(entrants)}
    files[_AGAIN] = files["0"]
    with networks_on(options.host, files) as networks:
        yield _There([entrant.name for entrant in entrants], target, networks)
