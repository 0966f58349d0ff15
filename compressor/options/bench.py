"""Options of `compress bench`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Parameter

from compressor.files.format_table import TENSORRT, titles_of_backends
from compressor.hosts import Host, read_host
from compressor.options.checks import check_choice, check_host, refusal
from compressor.options.model_and_data import ModelOptions
from compressor.options.spelling import (
    LATENCY,
    listed_numbers,
    option,
    several,
    switch,
    whole_numbers,
)

Precision = Literal["fp32", "tf32", "bf16", "fp16"]


@Parameter(name="*")
@dataclass(frozen=True)
class BenchOptions(ModelOptions):
    """How networks are timed."""

    backend: Annotated[tuple[str, ...], several(LATENCY, "NAME")] = ("onnxruntime",)
    """What runs them: onnxruntime, tensorrt (by ONNX Runtime, on a GPU), torch (eager), \
torch-compiled, torch-graphs (CUDA graphs: a GPU's kernels recorded once and replayed), openvino, \
executorch, ncnn; PyTorch runs programs, the last three files of their own, no mere ONNX files."""

    device: Annotated[Literal["cpu", "cuda"], option(LATENCY)] = "cpu"
    """The device; cuda with onnxruntime takes the package onnxruntime-gpu."""

    on: Annotated[str | None, option(LATENCY, "HOST")] = None
    """Another machine that times ONNX files, by your own ssh: ssh:user@host:port, or ssh: \
and a name of your ssh configuration. It needs Python 3.8 or later with onnxruntime and numpy; \
nothing is left there."""

    on_python: Annotated[str | None, option(LATENCY, "FILE")] = None
    """The Python to run there, e.g. ~/venv/bin/python; default python3 or python."""

    threads: Annotated[tuple[int, ...], listed_numbers(LATENCY, "N,…", whole_numbers)] = ()
    """Threads within one operator; default 1, and as many as there are processors."""

    batch: Annotated[tuple[int, ...], listed_numbers(LATENCY, "N,…", whole_numbers)] = (1, 8)
    """Samples in a call; default 1,8."""

    precision: Annotated[tuple[Precision, ...], several(LATENCY, "NAME")] = ("fp32",)
    """What PyTorch computes in: fp32, tf32 (float32 multiplied with fewer bits, on GPUs), bf16, \
fp16. In all but fp32 a GPU's images lie channels last."""

    seconds: Annotated[float, option(LATENCY, "S")] = 6.0
    """How long each way is measured, all networks together; slow ones take five turns at least."""

    layers: Annotated[bool, switch(LATENCY)] = False
    """Show each layer's time before and after, not only those that did not get faster."""

    def __post_init__(self) -> None:
        super().__post_init__()
        names = (name for given in self.backend for name in given.split(","))
        object.__setattr__(self, "backend", tuple(dict.fromkeys(names)))
        for backend in self.backend:
            check_choice("backend", backend, tuple(titles_of_backends()))
        for name in ("threads", "batch"):
            if not all(number >= 1 for number in getattr(self, name)):
                raise refusal(name, "all numbers are at least 1")
        if "torch-graphs" in self.backend and self.device == "cpu":
            raise refusal("backend", "CUDA graphs are recorded on a GPU; give --device cuda")
        if TENSORRT in self.backend and self.device == "cpu":
            raise refusal("backend", "TensorRT runs networks on a GPU; give --device cuda")
        if "tf32" in self.precision and self.device == "cpu":
            raise refusal("precision", "tf32 is of GPUs; give --device cuda")
        if self.precision != ("fp32",) and {"onnxruntime", TENSORRT} & {*self.backend}:
            raise refusal(
                "precision", "ONNX Runtime computes as the file says; give --backend torch"
            )
        check_host(self.on, self.on_python)
        if self.on is not None and (self.backend, self.device) != (("onnxruntime",), "cpu"):
            raise refusal("on", "ONNX Runtime runs there, on the CPU: --backend onnxruntime")
        if not self.seconds > 0:
            raise refusal("seconds", f"{self.seconds:g} is no time")

    @property
    def host(self) -> Host | None:
        """Return the other machine that is measured; None where this one is."""
        return read_host(self.on, self.on_python or "") if self.on is not None else None
