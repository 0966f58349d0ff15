"""List the ways in which networks are run: backend, device, threads, samples, precision."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from compressor.files.format_table import titles_of_backends
from compressor.machine import cores


@dataclass(frozen=True)
class Way:
    """One way to run a network.

    Attributes:
        backend: One of the formats' table.
        device: "cpu" or an accelerator.
        threads: The number of threads; it matters on the CPU only.
        batch: The number of samples in a call.
        precision: What PyTorch computes in, a key of `torch_calls.DTYPES`.
        host: The other machine that runs it, as `--on` spells it; "" is this one.
    """

    backend: str
    device: str
    threads: int
    batch: int
    precision: str = "fp32"
    host: str = ""

    @property
    def words(self) -> str:
        """Return the way in words, for a table's title."""
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        where = threads if self.device == "cpu" else self.device
        numbers = "" if self.precision == "fp32" else f", {self.precision}"
        host = f", on {self.host}" if self.host else ""
        return f"{titles_of_backends()[self.backend]}, {where}, batch {self.batch}{numbers}{host}"


def ways_of(
    backends: Iterable[str],
    device: str,
    threads: Iterable[int],
    batches: Iterable[int],
    precisions: Iterable[str] = ("fp32",),
    host: str = "",
) -> list[Way]:
    """Return every combination of backends, threads, batches and precisions on a device.

    No threads means one thread and all cores. On an accelerator the number of threads does not
    matter, so there is one way each.
    """
    given = tuple(threads) or tuple(dict.fromkeys((1, cores())))
    on_device = given if device == "cpu" else (1,)
    every = itertools.product(backends, on_device, batches, precisions)
    return [Way(name, device, number, batch, kind, host) for name, number, batch, kind in every]
