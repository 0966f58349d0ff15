"""Measure networks and layers on another machine, by the scripts that go along with results."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from compressor.hosts import Connection, Host, connected
from compressor.latency.kernels import network_of
from compressor.latency.layer_bench import Case
from compressor.latency.networks import Timed, sum_up
from compressor.latency.operators import Operator, external_files, join_times
from compressor.latency.sketches import BESIDE
from compressor.report import machine_words
from compressor.runtimes.onnx import Kernel
from compressor.watch import Stopwatch, Tick

_SCRIPT = "host_calls"
_NOBODY: Tick = lambda done, total, text: None  # noqa: E731


@dataclass(frozen=True)
class Target:
    """What a host says of itself.

    Attributes:
        machine: Its processor, cores and runtime, as `machine.machine_of` names them, and the host
            as the command line spells it: two machines with equal processors are not one.
        threads: How many processors a process may use there.
    """

    machine: Mapping[str, Any]
    threads: int


@contextmanager
def _scripts_on(host: Host) -> Iterator[Connection]:
    with connected(host) as connection:
        for name in ("bench.py", f"{_SCRIPT}.py"):
            file = resources.files("compressor.report") / "templates" / name
            connection.send_script(name, file.read_bytes())
        yield connection


@cache
def ask_target(host: Host) -> Target:
    """Ask a host what it is; once per process.

    Raises:
        CompressorError: It cannot be reached, or cannot run ONNX Runtime.
    """
    with _scripts_on(host) as connection:
        said = connection.ask(_SCRIPT, "describe_machine", {})
    return Target({**said["machine"], "host": host.spelled}, said["threads"])


def reach(host: Host, stopwatch: Stopwatch) -> None:
    """Ask a host what it is, and show it, before anything long is done.

    Raises:
        CompressorError: It cannot be reached, or cannot run ONNX Runtime.
    """
    with stopwatch.stage("reach the target") as tick:
        tick(1, 1, machine_words(ask_target(host).machine))


@dataclass(frozen=True)
class HostBench:
    """A bench that times layers by a host's ONNX Runtime, on one thread or several of its CPU."""

    connection: Connection
    threads: int

    def times_ms(self, cases: Sequence[Case]) -> list[float]:
        """Return the milliseconds of each case. Raises what `Connection.ask` does."""
        networks = [
            network_of(case.kind, case.sizes, case.literals, with_weights=False) for case in cases
        ]
        coded = [base64.b64encode(network).decode() for network in networks]
        asked = {"networks": coded, "threads": self.threads, "beside": BESIDE}
        times: list[float] = self.connection.ask(_SCRIPT, "time_layers", asked)
        return times


@contextmanager
def bench_on(host: Host, threads: int) -> Iterator[HostBench]:
    """Yield a bench on a host, which is connected while the block lasts."""
    with _scripts_on(host) as connection:
        yield HostBench(connection, threads)


def measure_turns_on(
    host: Host, networks: Mapping[str, Path], *, threads: int, batch: int, seconds: float
) -> dict[str, Timed]:
    """Time ONNX files against each other on a host, as `networks.measure_turns` does here.

    Raises:
        CompressorError: The host cannot be reached, or does not run them.
    """
    with _scripts_on(host) as connection:
        kept = _send(networks, connection)
        asked = {"networks": kept, "threads": threads, "batch": batch, "seconds": seconds}
        rounds = connection.ask(_SCRIPT, "take_turns", asked)
    return {name: sum_up(rounds[name], threads, batch, host.spelled) for name in networks}


def _send(networks: Mapping[str, Path], connection: Connection) -> dict[str, str]:
    """Send ONNX files with the files that have their weights; return where each is there."""
    return {
        name: connection.send_files(path, external_files(path)) for name, path in networks.items()
    }


@contextmanager
def networks_on(host: Host, networks: Mapping[str, Path]) -> Iterator[NetworksThere]:
    """Yield networks that were sent to a host, which is connected while the block lasts."""
    with _scripts_on(host) as connection:
        kept = _send(networks, connection)
        yield NetworksThere(connection, dict(networks), kept)


@dataclass(frozen=True)
class NetworksThere:
    """Networks that were sent to a host.

    Attributes:
        connection: To the host.
        files: The ONNX files here, by name.
        kept: Where they are there.
    """

    connection: Connection
    files: Mapping[str, Path]
    kept: Mapping[str, str]

    def time_in_rounds(
        self, *, threads: int, batch: int, seconds: float, tick: Tick = _NOBODY
    ) -> dict[str, list[list[float]]]:
        """Return the milliseconds of each call, by network and round."""
        asked = {"networks": self.kept, "threads": threads, "batch": batch, "seconds": seconds}
        rounds = self.connection.ask(_SCRIPT, "time_in_rounds", asked, tick)
        return {name: rounds[name] for name in self.kept}

    def profile(self, name: str) -> list[Operator]:
        """Return a network's operators with their times, as `operators.profile` does here."""
        asked = {"network": self.kept[name], "threads": 1, "batch": 1}
        kernels = self.connection.ask(_SCRIPT, "record_operators", asked)
        return join_times(self.files[name], [Kernel(*each) for each in kernels])
