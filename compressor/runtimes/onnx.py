"""Start ONNX files, by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

from compressor.clock import Call, Clock, by_wall
from compressor.files.format_table import TENSORRT
from compressor.onnx_runtime import draw_inputs, make_call, open_session
from compressor.runtimes.ways import Way


def start(path: Path, way: Way, seed: int) -> tuple[Call, Clock]:
    """Open an ONNX file to be run in one way on random inputs of a seed.

    Returns:
        A call, with the clock for it.

    Raises:
        Exception: Whatever the runtime raises.
    """
    by = TENSORRT if way.backend == TENSORRT else way.device
    session = open_session(path, way.threads, by)
    return make_call(session, draw_inputs(session, way.batch, seed), way.device), by_wall
