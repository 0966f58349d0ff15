"""Time layers on their own, against each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from compressor.clock import repeat
from compressor.errors import CompressorError
from compressor.files.claimed import temporary_folder
from compressor.latency.clocks import Clock, Recorded, Waited
from compressor.latency.kernels import network_of
from compressor.runtimes.providers import check_provider


@dataclass(frozen=True)
class Case:
    """A layer at given sizes, to be timed.

    Attributes:
        kind: A row of `kernels.KERNELS`.
        sizes: The sizes that the kind names.
        literals: Numbers and words that no pruning changes (stride, padding).
    """

    kind: str
    sizes: Mapping[str, int]
    literals: Mapping[str, Any]


_NOTHING = Case("elementwise", {"elements": 1}, {"op": "Abs", "tensors": 1})


class Bench(Protocol):
    """Whatever can time layers: ONNX Runtime on this machine, or a stand-in in tests."""

    def times_ms(self, cases: Sequence[Case]) -> list[float]:
        """Return the milliseconds of each case; all are measured together, taking turns."""


@dataclass(frozen=True)
class OnnxBench:
    """A bench that times layers by ONNX Runtime on this machine.

    Each layer is a network of its own. They take turns call by call, so that a machine that slows
    down slows all of them, and none finds its weights in the caches, where it left them. On the CPU
    all write into the same memory, as the layers of one network do, and the runtime's record of its
    operators is read; on an accelerator the clock is, less what a call takes that computes next to
    nothing.

    Attributes:
        threads: Threads within one operator.
        device: "cpu" or "cuda".
        seconds: How long one layer may be repeated.
        least: How often a slow layer is called all the same.
        most: How often a quick layer is called at most.

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
        """Return the milliseconds of each case: the mean of the middle half of its calls.

        Raises:
            CompressorError: The runtime cannot run a layer.
        """
        with temporary_folder() as folder:
            clocks = [self._start(case, folder / str(i)) for i, case in enumerate(cases)]
            idle = [] if self.device == "cpu" else [self._start(_NOTHING, folder)]
            for _ in repeat(self.seconds * len(clocks), self.least, self.most):
                for clock in (*clocks, *idle):
                    clock.call()
            overhead = sum(clock.ms() for clock in idle)
            return [max(0.0, clock.ms() - overhead) for clock in clocks]

    def _start(self, case: Case, prefix: Path) -> Clock:
        """Open the layer's network, call it once, and return its clock."""
        with naming("ONNX Runtime", case):
            network = network_of(case.kind, case.sizes, case.literals)
            clock: Clock = (
                Recorded(network, self.threads, prefix)
                if self.device == "cpu"
                else Waited(network, self.threads, self.device)
            )
            clock.call()
            return clock


@contextmanager
def naming(runtime: str, case: Case) -> Iterator[None]:
    """Turn whatever a runtime raises in the block into an error that names the layer.

    Raises:
        CompressorError: The runtime raised something; its exceptions share no base.
    """
    try:
        yield
    except Exception as error:
        raise CompressorError(
            f"{runtime} could not run a layer on its own: {error}",
            where=f"{case.kind} {dict(case.sizes)} {dict(case.literals)}",
            consequence="the latency of networks with such a layer cannot be modelled",
            next_step="please report it with the layer's code",
        ) from error
