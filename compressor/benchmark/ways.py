"""In which ways networks are run: backend, device, threads, samples in a call."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from compressor.sessions import cores

BACKENDS: Mapping[str, str] = {
    "onnxruntime": "ONNX Runtime",
    "torch": "PyTorch, eager",
    "torch-compiled": "PyTorch, compiled",
}


@dataclass(frozen=True)
class Way:
    """One way to run a network."""

    backend: str
    device: str
    threads: int
    batch: int

    @property
    def words(self) -> str:
        """For a table."""
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        where = threads if self.device == "cpu" else self.device
        return f"{BACKENDS[self.backend]}, {where}, batch {self.batch}"


def ways_of(
    backends: Iterable[str], device: str, threads: Iterable[int], batches: Iterable[int]
) -> list[Way]:
    """All of them; on an accelerator the number of threads does not matter."""
    numbers = tuple(threads) or tuple(dict.fromkeys((1, cores())))
    every = itertools.product(backends, numbers if device == "cpu" else (1,), batches)
    return [Way(backend, device, number, batch) for backend, number, batch in every]
