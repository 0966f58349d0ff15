"""Compile networks for OpenVINO: the one place that says how it runs them."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from compressor import extras
from compressor.onnx_runtime import cores, fill_sizes


def load_openvino() -> ModuleType:
    """Import OpenVINO.

    Raises:
        UsageError: It is not installed; the next step names the extra.
    """
    return extras.load("openvino", "OpenVINO models (--format, --backend, --latency-on)")


def compile_network(
    network: str | bytes,
    threads: int | None = None,
    batch: int | None = None,
    *,
    is_recorded: bool = False,
) -> Any:
    """Compile a network for the CPU, in float32, for the shortest single call.

    Args:
        network: The path of an OpenVINO model or ONNX file, or the content of an ONNX file.
        threads: Threads within one operator; default as many as there are processors.
        batch: What free sizes become, so that the model is compiled for these; None: they stay.
        is_recorded: Whether it records what each operator takes.

    Raises:
        UsageError: OpenVINO is not installed. OpenVINO's own exceptions come as they are.
    """
    core = load_openvino().Core()
    model = core.read_model(network)
    if batch is not None:
        fill_free_sizes(model, batch)
    how = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads or cores(),
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "PERF_COUNT": is_recorded,
    }
    return core.compile_model(model, "CPU", how)


def fill_free_sizes(model: Any, batch: int) -> None:
    """Give a model static sizes for a number of samples, in place."""
    model.reshape({port.any_name: _sizes(port, batch) for port in model.inputs})


def _sizes(port: Any, batch: int) -> list[int]:
    given = [0 if size.is_dynamic else size.get_length() for size in port.partial_shape]
    return fill_sizes(given, batch)
