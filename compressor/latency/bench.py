"""One layer's time, by the runtime's own clock."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from compressor.errors import CompressorError, UsageError
from compressor.latency.kernels import BESIDE, network_of

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_LAYOUT = ("ReorderInput", "ReorderOutput", "MemcpyFromHost", "MemcpyToHost")
"""Operators that a layer on its own has at its ends and one among others has not."""


@dataclass(frozen=True)
class Case:
    """A layer at given sizes."""

    kind: str
    sizes: Mapping[str, int]
    literals: Mapping[str, Any]


class Bench(Protocol):
    """Whatever can time layers."""

    def times_ms(self, cases: Sequence[Case]) -> list[float]:
        """Milliseconds of each; all of them are measured together, taking turns."""


@dataclass(frozen=True)
class OnnxBench:
    """ONNX Runtime on this machine.

    Each layer is a network of its own. They take turns call by call, so that a machine that slows
    down slows all of them, and none finds its weights in the caches, where it left them. All write
    into the same memory, as the layers of one network do. The first call of each is not counted;
    of the others the median is taken, of what the runtime says that its operators took: changes of
    layout, which a layer among others does not pay, are left out.

    Attributes:
        threads: Threads within one operator.
        device: "cpu" or "cuda".
        seconds: How long one layer may be repeated; slow ones are called `least` times.

    Raises:
        UsageError: The installed runtime does not run on the device.
    """

    threads: int = 1
    device: str = "cpu"
    seconds: float = 0.01
    least: int = 3
    most: int = 20

    def __post_init__(self) -> None:
        check_provider(self.device)

    def times_ms(self, cases: Sequence[Case]) -> list[float]:
        """Median milliseconds of each case."""
        with tempfile.TemporaryDirectory(prefix="compress-") as folder:
            timed = [self._session(case, Path(folder) / str(i)) for i, case in enumerate(cases)]
            end, turns = time.perf_counter() + self.seconds * len(timed), 0
            while turns < self.least or (turns < self.most and time.perf_counter() < end):
                for session, feed in timed:
                    session.run(None, feed)
                turns += 1
            return [_kernel_ms(Path(session.end_profiling())) for session, _ in timed]

    def _session(self, case: Case, prefix: Path) -> tuple[Any, dict[str, Any]]:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.log_severity_level = 4
        options.enable_profiling, options.profile_file_prefix = True, str(prefix)
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if self.device == "cpu":
            _share_memory()
            options.add_session_config_entry("session.use_env_allocators", "1")
        network = network_of(case.kind, case.sizes, case.literals)
        with _said_of(case):
            session = ort.InferenceSession(network, options, providers=[PROVIDERS[self.device]])
            feed = _feeds(session.get_inputs())
            session.run(None, feed)
            return session, feed


def check_provider(device: str) -> None:
    """Raise `UsageError` if the installed runtime does not run on the device."""
    import onnxruntime as ort

    if PROVIDERS.get(device) not in ort.get_available_providers():
        raise UsageError(
            f"this ONNX Runtime does not run on {device!r}",
            where="--latency-on",
            consequence="no layer was timed",
            next_step="install onnxruntime-gpu, or give --latency-on cpu"
            if device in PROVIDERS
            else f"give one of {', '.join(PROVIDERS)}",
        )


@contextmanager
def _said_of(case: Case) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # ONNX Runtime's own exceptions share no base but this one
        raise CompressorError(
            f"ONNX Runtime could not run a layer on its own: {error}",
            where=f"{case.kind} {dict(case.sizes)} {dict(case.literals)}",
            consequence="the latency of networks with such a layer cannot be modelled",
            next_step="please report it with the layer's code",
        ) from error


@cache
def _share_memory() -> None:
    """Let the runtime keep one pool of memory for all networks that ask for it."""
    import onnxruntime as ort

    kinds = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    ort.create_and_register_allocator(ort.OrtMemoryInfo("Cpu", *kinds), None)


def _feeds(specs: Sequence[Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Parts of one array, which all layers read; indices are ones."""
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
    """At least so many numbers of about one, always the same memory while they suffice."""
    if len(_NUMBERS[0]) < count:
        _NUMBERS[0] = np.resize(np.linspace(0.5, 1.5, 1019, dtype=np.float32), count)
    return _NUMBERS[0]


def _kernel_ms(profile: Path) -> float:
    """The sum over a network's operators of their median time, without the first call."""
    times: dict[str, list[float]] = {}
    for event in json.loads(profile.read_text()):
        name, details = event["name"], event.get("args", {})
        is_kernel = event["cat"] == "Node" and name.endswith("_kernel_time")
        if is_kernel and details.get("op_name") not in _LAYOUT and not name.startswith(BESIDE):
            times.setdefault(name, []).append(event["dur"] / 1000)
    return float(sum(np.median(found[1:]) for found in times.values()))
