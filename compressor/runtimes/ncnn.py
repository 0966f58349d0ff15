"""Open and start ncnn models."""

from __future__ import annotations

from pathlib import Path

from compressor.clock import Call, Clock, by_wall
from compressor.errors import UsageError
from compressor.files.format_table import FORMATS, NCNN
from compressor.runtimes.failures import does_not_run, require_cpu
from compressor.runtimes.ncnn_network import NcnnNetwork
from compressor.runtimes.ways import Way

RUNTIME, LABEL = "ncnn", FORMATS[NCNN].label


def open_network(path: Path, threads: int | None = None) -> NcnnNetwork:
    """Load a model for the CPU, in float32.

    Raises:
        CompressorError: ncnn cannot read it.
    """
    try:
        return NcnnNetwork(path, threads)
    except (ValueError, OSError, RuntimeError) as error:
        raise does_not_run(RUNTIME, error, path) from error


def start(path: Path, way: Way, seed: int) -> tuple[Call, Clock]:
    """Open a model to be run in one way, as `compressor.runtimes.onnx.start` opens a file."""
    require_cpu(RUNTIME, way)
    if way.batch != 1:
        raise UsageError(
            f"the {LABEL} takes one sample a call",
            where=f"--batch {way.batch}",
            consequence="nothing was timed",
            next_step="give --batch 1",
        )
    network = open_network(path, way.threads)
    given = network.prepare(network.draw(seed))
    try:
        network.run(given)
    except (ValueError, RuntimeError) as error:
        raise does_not_run(RUNTIME, error, path) from error
    return lambda: network.run(given), by_wall
