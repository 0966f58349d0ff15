"""What formats have in common that neither ONNX Runtime nor PyTorch runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from compressor.agreement import ONNX as TOLERANCE
from compressor.agreement import Cases, Tolerance
from compressor.errors import CompressorError
from compressor.formats.verification import Case, Opened, compare_outputs, require_alive
from compressor.quiet import root_message


def verifier(open_file: Callable[[Path], Opened]) -> Callable[..., float]:
    """Return a function that compares a file with PyTorch's outputs, called like `verify_onnx`.

    Args:
        open_file: Opens a file in the runtime that it is for.
    """

    def verify(
        path: Path,
        cases: Sequence[Case],
        tolerance: Tolerance = TOLERANCE,
        *,
        rounding: Callable[[], Sequence[Cases]] | None = None,
        must_be_live: bool = True,
    ) -> float:
        if must_be_live:
            require_alive(cases, path, tolerance)
        return compare_outputs(open_file(path), cases, tolerance, rounding)

    return verify


def does_not_take(
    runtime: str, label: str, why: str | Exception, where: str | Path
) -> CompressorError:
    """Return the error of a network that a runtime has no equivalent of."""
    said = why if isinstance(why, str) else root_message(why)
    return CompressorError(
        f"{runtime} does not take the network: {said}",
        where=str(where),
        consequence=f"there is no {label}",
        next_step="deploy the ONNX file, or another format",
    )


def cannot_be_read(label: str, error: Exception, path: Path) -> CompressorError:
    """Return the error of a file that cannot be counted, since it cannot be read."""
    return CompressorError(
        f"the {label} cannot be read: {root_message(error)}",
        where=str(path),
        consequence="nothing was timed",
        next_step="export it again",
    )
