"""List the ways in which networks are run: backend, device, threads, samples in a call."""

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
    """One way to run a network.

    Attributes:
        backend: A key of BACKENDS.
        device: "cpu" or an accelerator.
        threads: The number of threads; it matters on the CPU only.
        batch: The number of samples in a call.
    """

    backend: str
    device: str
    threads: int
    batch: int

    @property
    def words(self) -> str:
        """The way in words, for a table's title."""
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        where = threads if self.device == "cpu" else self.device
        return f"{BACKENDS[self.backend]}, {where}, batch {self.batch}"


def ways_of(
    backends: Iterable[str], device: str, threads: Iterable[int], batches: Iterable[int]
) -> list[Way]:
    """Return every combination of backends, threads and batches on a device.

    No threads means one thread and all cores. On an accelerator the number of threads does not
    matter, so there is one way each.
    """
    numbers = tuple(threads) or tuple(dict.fromkeys((1, cores())))
    every = itertools.product(backends, numbers if device == "cpu" else (1,), batches)
    return [Way(backend, device, number, batch) for backend, number, batch in every]
