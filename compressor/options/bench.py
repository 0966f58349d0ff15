"""Options of `compress bench`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Parameter

from compressor.options.checks import refusal
from compressor.options.scoring import ModelOptions
from compressor.options.spelling import (
    LATENCY,
    listed_numbers,
    option,
    several,
    switch,
    whole_numbers,
)

Backend = Literal["onnxruntime", "torch", "torch-compiled"]


@Parameter(name="*")
@dataclass(frozen=True)
class BenchOptions(ModelOptions):
    """How networks are timed."""

    backend: Annotated[tuple[Backend, ...], several(LATENCY, "NAME")] = ("onnxruntime",)
    """What runs them: onnxruntime, torch (eager), torch-compiled; PyTorch runs programs, no mere \
ONNX files."""

    device: Annotated[Literal["cpu", "cuda"], option(LATENCY)] = "cpu"
    """The device; cuda with onnxruntime takes the package onnxruntime-gpu."""

    threads: Annotated[tuple[int, ...], listed_numbers(LATENCY, "N,…", whole_numbers)] = ()
    """Threads within one operator; default 1, and as many as there are processors."""

    batch: Annotated[tuple[int, ...], listed_numbers(LATENCY, "N,…", whole_numbers)] = (1, 8)
    """Samples in a call; default 1,8."""

    seconds: Annotated[float, option(LATENCY, "S")] = 6.0
    """How long each way is measured, all networks together."""

    layers: Annotated[bool, switch(LATENCY)] = False
    """Show each layer's time before and after, not only those that did not get faster."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("threads", "batch"):
            if not all(number >= 1 for number in getattr(self, name)):
                raise refusal(name, "all numbers are at least 1")
        if not self.seconds > 0:
            raise refusal("seconds", f"{self.seconds:g} is no time")
