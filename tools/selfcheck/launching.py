"""The command in processes that fork from one which has everything imported, so that a hundred of
them take minutes; each leads a process group of its own, which can be killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from compressor.cli import main
from compressor.run import footprints

LATENCY_SECONDS = 0.05
CHANGES = frozenset(
    {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.link", "os.symlink", "os.truncate"}
)
"""Audit events of what changes a folder; opening a file to write is the other."""


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (negative: the signal), what it said, how long it took,
    and how often it changed files."""

    code: int
    said: str
    seconds: float
    changes: int = 0

    @property
    def was_killed(self) -> bool:
        return self.code == -signal.SIGKILL


@dataclass(frozen=True)
class Death:
    """When a process is killed: after some seconds, or right before a change of a file."""

    seconds: float | None = None
    change: int | None = None

    def __str__(self) -> str:
        return f"after {self.seconds:.2f} s" if self.change is None else f"change {self.change}"


def launch(
    arguments: Sequence[str], folder: Path, temporary: Path, death: Death | None = None
) -> Ended:
    """Run the command in a folder, with a folder for temporary files, until it ends or is killed.

    What it says is kept beside that folder, not in it.
    """
    death, output = death or Death(), temporary.with_suffix(".said")
    begin = time.perf_counter()
    process = _context().Process(
        target=_child, args=(list(arguments), folder, temporary, output, death.change)
    )
    process.start()
    process.join(death.seconds)
    if process.is_alive() and process.pid is not None:
        _kill(process.pid)
    process.join()
    code = process.exitcode if process.exitcode is not None else -1
    said = output.read_text(encoding="utf-8", errors="replace") if output.exists() else ""
    counted = output.with_suffix(".changes")
    changes = int(counted.read_text()) if counted.exists() else 0
    return Ended(code, said, time.perf_counter() - begin, changes)


@cache
def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tools.selfcheck.warm"])
    return context


def _kill(pid: int) -> None:
    """Its group, or the process where it has none yet."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _child(
    arguments: list[str], folder: Path, temporary: Path, output: Path, change: int | None
) -> None:
    os.setsid()
    handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(handle, stream)
    os.environ["TMPDIR"] = str(temporary)
    os.chdir(folder)
    torch.set_num_threads(1)  # the pool that the fork left broken is renewed before threads race
    footprints.LATENCY_SECONDS = LATENCY_SECONDS
    changes = _Changes((str(folder), str(temporary)), change)
    sys.addaudithook(changes.hear)
    code = main(arguments)
    sys.stdout.flush()
    output.with_suffix(".changes").write_text(str(changes.count))
    os._exit(code)  # what the forking process brought along is not ours to close


class _Changes:
    """Counts changes of files in some folders; before one of them, it kills."""

    def __init__(self, places: tuple[str, ...], last: int | None) -> None:
        self.places, self.last, self.count = places, last, 0

    def hear(self, event: str, given: tuple[Any, ...]) -> None:
        if event in CHANGES or (event == "open" and self._writes(*given)):
            if self.count == self.last:
                os.killpg(0, signal.SIGKILL)
            self.count += 1

    def _writes(self, path: Any, mode: Any, flags: int) -> bool:
        is_named = isinstance(path, str | bytes) and bool(flags & (os.O_WRONLY | os.O_RDWR))
        return is_named and str(Path(os.fsdecode(path)).absolute()).startswith(self.places)
