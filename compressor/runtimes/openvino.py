"""Compile networks for OpenVINO and start them: the one place that says how it runs them."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from compressor import extras
from compressor.clock import Call, Clock, by_wall
from compressor.machine import cores
from compressor.quiet import silence
from compressor.runtimes.failures import does_not_run, require_cpu
from compressor.runtimes.inputs import draw_array, fill_sizes
from compressor.runtimes.ways import Way

RUNTIME = "OpenVINO"


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


def open_model(path: Path, threads: int | None = None, batch: int | None = None) -> Any:
    """Compile a model for the CPU, in float32, for the shortest single call.

    Args:
        path: The .xml file.
        threads: Threads; default as many as there are processors.
        batch: What free sizes become, so that the model is compiled for these; None: they stay.

    Raises:
        CompressorError: OpenVINO cannot read or compile it.
    """
    load_openvino()
    try:
        with silence():
            return compile_network(str(path), threads, batch)
    except Exception as error:  # OpenVINO's own exceptions share no base but this one
        raise does_not_run(RUNTIME, error, path) from error


def start(path: Path, way: Way, seed: int) -> tuple[Call, Clock]:
    """Open a model to be run in one way, as `compressor.runtimes.onnx.start` opens a file."""
    require_cpu(RUNTIME, way)
    compiled = open_model(path, way.threads, way.batch)
    request, rng = compiled.create_infer_request(), np.random.default_rng(seed)
    ov = load_openvino()
    for port in compiled.inputs:
        drawn = draw_array(list(port.shape), port.element_type.to_dtype(), rng)
        request.set_tensor(port, ov.Tensor(drawn))
    request.infer()
    return request.infer, by_wall
