"""Open and start OpenVINO models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from compressor.clock import Call, Clock, by_wall
from compressor.onnx_runtime import draw_array
from compressor.openvino_runtime import compile_network, load_openvino
from compressor.quiet import silence
from compressor.runtimes.failures import does_not_run, require_cpu
from compressor.runtimes.ways import Way

RUNTIME = "OpenVINO"


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
