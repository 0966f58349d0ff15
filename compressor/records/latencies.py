"""The record of a measured time."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Latency:
    """The measured times of one call, in milliseconds.

    Attributes:
        runtime: Name of the runtime.
        device: Where it ran: "cpu" or "cuda".
        threads: Threads within one operator.
        batch: Number of samples of the call.
        p50_ms: Median.
        p90_ms: 90th percentile.
        cpu_ms: Median of the processor's time, which is what a call takes when the machine does
            nothing else; known for one thread on the CPU.
        quantiles_ms: The 5th, 25th, 50th, 75th and 95th percentile, where they are known.
        host: The other machine that it ran on, as `--on` spells it; "" is this one.
    """

    runtime: str
    device: str
    threads: int
    batch: int
    p50_ms: float
    p90_ms: float
    cpu_ms: float | None = None
    quantiles_ms: tuple[float, ...] = ()
    host: str = ""

    @property
    def own_ms(self) -> float:
        """Return the milliseconds of a call by itself: the processor's time where known."""
        return self.p50_ms if self.cpu_ms is None else self.cpu_ms
