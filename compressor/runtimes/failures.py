"""Name what runtimes cannot do."""

from __future__ import annotations

from pathlib import Path

from compressor.errors import CompressorError, UsageError
from compressor.quiet import root_message
from compressor.runtimes.ways import Way


def does_not_run(runtime: str, error: Exception, path: Path) -> CompressorError:
    """Return the error of a file that its runtime cannot run."""
    return CompressorError(
        f"{runtime} could not run the network: {root_message(error)}",
        where=str(path),
        consequence="it is neither verified nor timed",
        next_step="deploy the ONNX file, or another format",
    )


def require_cpu(runtime: str, way: Way) -> None:
    """Raise UsageError where a file is to be timed elsewhere than on the CPU."""
    if way.device != "cpu":
        raise UsageError(
            f"{runtime} is timed on the CPU, not on {way.device!r}",
            where="--device",
            consequence="nothing was timed",
            next_step="give --device cpu",
        )
