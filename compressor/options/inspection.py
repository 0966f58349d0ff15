"""Options of `compress inspect`."""

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from compressor.options.checks import at_least
from compressor.options.compression import Target
from compressor.options.model_and_data import ModelOptions
from compressor.options.spelling import LATENCY, option, switch


@Parameter(name="*")
@dataclass(frozen=True)
class InspectOptions(ModelOptions):
    """What is shown of a network; raises UsageError for a value that cannot be meant."""

    time: Annotated[bool, switch(LATENCY)] = False
    """Time the layers, and show each block's share of the time of one call."""

    latency_on: Annotated[Target, option(LATENCY)] = "cpu"
    """Where they are timed: cpu and cuda by ONNX Runtime, torch-cpu and torch-cuda by PyTorch."""

    threads: Annotated[int, option(LATENCY, "N")] = 1
    """Threads within one operator."""

    batch: Annotated[int, option(LATENCY, "N")] = 1
    """Samples in one call."""

    latency_table: Annotated[str | None, option(LATENCY, "FILE")] = None
    """A table of layers' times that was measured elsewhere; with it nothing is measured here."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, threads=1, batch=1)
        if self.latency_table is not None:
            object.__setattr__(self, "time", True)
