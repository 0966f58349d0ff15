"""Networks as files, timed against each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from compressor.formats import export_onnx
from compressor.graph.trace import trace
from compressor.latency.networks import measure_latency
from compressor.records import ExampleInputs, Trace


def exported(traced: Trace, program: Any, path: Path) -> Path:
    """The program's ONNX file."""
    export_onnx(program, path, batch_symbol=traced.batch_symbol)
    return path


def exported_module(module: nn.Module, example: Tensor, path: Path) -> Path:
    """The ONNX file of a module that is not ours."""
    traced = trace(module, ExampleInputs((example,)))
    return exported(traced, traced.program, path)


def timed(
    original: Path, smaller: Mapping[str, Path], *, batch: int = 1, seconds: float = 8.0
) -> dict[str, Any]:
    """Milliseconds of processor time of one call in one thread, all networks taking turns; the
    original runs twice, which shows the noise."""
    files = {"original": original, "original again": original, **smaller}
    found = measure_latency(files, batch=batch, seconds=seconds)
    one, other = (found[name].own_ms for name in ("original", "original again"))
    whole = (one + other) / 2
    return {
        "batch": batch,
        "original_ms": whole,
        "noise": abs(one - other) / whole,
        "ms": {name: found[name].own_ms for name in smaller},
        "wall_ms": {name: [found[name].p50_ms, found[name].p90_ms] for name in smaller},
        "share": {name: found[name].own_ms / whole for name in smaller},
    }
