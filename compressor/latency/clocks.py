"""Time one small network: by the runtime's record of its operators, or by the clock."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from compressor.clock import by_wall
from compressor.latency.sketches import BESIDE
from compressor.latency.statistics import usual
from compressor.runtimes.onnx import make_call, open_session, read_record

_LAYOUT = ("ReorderInput", "ReorderOutput")
"""Operators that a layer on its own has at its ends and one among others has not."""


class Clock(Protocol):
    """A small network that is called again and again, and how long its calls took."""

    def call(self) -> None:
        """Run the network once."""

    def ms(self) -> float:
        """Return the milliseconds of a usual call, without the first one; ask once, at the end."""


class Recorded:
    """A network on the CPU, timed by what the runtime says that each operator took.

    Changes of layout and helpers are left out: a layer among others does not pay them.
    """

    def __init__(self, network: bytes, threads: int, prefix: Path) -> None:
        _share_memory()
        self._session = open_session(network, threads, record=prefix, shares_memory=True)
        self._make_feeds = _make_feeds(self._session.get_inputs())

    def call(self) -> None:
        self._session.run(None, self._make_feeds)

    def ms(self) -> float:
        times: dict[str, list[float]] = {}
        for kernel in read_record(self._session):
            if kernel.kind not in _LAYOUT and not kernel.name.startswith(BESIDE):
                times.setdefault(kernel.name, []).append(kernel.ms)
        return sum(usual(calls[1:]) for calls in times.values())


class Waited:
    """A network timed by the wall clock; inputs and results stay on the device.

    An accelerator works on while calls return, so the runtime's record says nothing of it, and a
    call is waited for until its result is there.
    """

    def __init__(self, network: bytes, threads: int, device: str) -> None:
        session = open_session(network, threads, device)
        self._call = make_call(session, _make_feeds(session.get_inputs()), device)
        self._times: list[float] = []

    def call(self) -> None:
        self._times.append(by_wall(self._call))

    def ms(self) -> float:
        return usual(self._times[1:])


@cache
def _share_memory() -> None:
    """Let the runtime keep one pool of memory for all networks that ask for it."""
    import onnxruntime as ort

    kinds = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    ort.create_and_register_allocator(ort.OrtMemoryInfo("Cpu", *kinds), None)


def _make_feeds(specs: Sequence[Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Return inputs by name, as parts of one array that all layers read; indices are ones."""
    ends = np.cumsum([0, *(math.prod(spec.shape) for spec in specs)])
    numbers = _numbers(int(ends[-1]))
    return {
        spec.name: np.ones(spec.shape, np.int64)
        if spec.type == "tensor(int64)"
        else numbers[start:end].reshape(spec.shape)
        for spec, start, end in zip(specs, ends, ends[1:], strict=False)
    }


_NUMBERS = [np.empty(0, np.float32)]


def _numbers(count: int) -> np.ndarray[Any, Any]:
    """Return at least so many numbers of about one, always the same memory while they suffice."""
    if len(_NUMBERS[0]) < count:
        _NUMBERS[0] = np.resize(np.linspace(0.5, 1.5, 1019, dtype=np.float32), count)
    return _NUMBERS[0]
