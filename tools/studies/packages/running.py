"""One file compressed in a process of its own, as a user does it, and judged."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import compressor
from compressor.files.format_table import FORMATS, ONNX
from compressor.runtimes.process import peak_mb
from tools.studies.packages.files import FileNetwork

Found = TypeVar("Found")


def apart(work: Callable[..., Found], *given: Any) -> Found:
    """Return what a function of a module finds in a new process, whose memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *given).result()


def compress_and_judge(network: FileNetwork, options: Mapping[str, Any]) -> dict[str, Any]:
    """Compress a package's file by its path; return what the report, and both files, are worth.

    Returns:
        `report` (that of the run), `peak_mb` (until the result was there), `quality` (per measure
        the original's and the result's, of the written ONNX files).
    """
    result = compressor.compress(str(network.path), data=network.samples, **options)
    peak = peak_mb()
    with tempfile.TemporaryDirectory(prefix="judged-") as name:
        folder = Path(name) / "result"
        result.save(folder)
        qualities = [network.quality_of(f) for f in (network.path, folder / FORMATS[ONNX].file)]
    return {
        "report": result.report,
        "peak_mb": round(peak),
        "quality": {measure: [q[measure] for q in qualities] for measure in qualities[0]},
    }
