"""Find what starts the files of a format."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from compressor.clock import Call, Clock
from compressor.runtimes.ways import Way

Start = Callable[[Path, Way, int], tuple[Call, Clock]]
"""Opens a file to be run in one way on random inputs of a seed; returns a call, with the clock for
it. It raises whatever the runtime raises."""


def start_in(runner: str) -> Start:
    """Return what starts a file, by the module that a row of the formats' table names."""
    start: Start = import_module(runner).start
    return start
