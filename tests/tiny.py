"""Tiny networks and files, which the tools share."""

from typing import Any

import compressor
from tools.tiny import (
    BRIEFLY_TIMED,
    CHANNELS,
    CLASSES,
    RESULT_FILES,
    SIDE,
    HardCoded,
    TinyNet,
    inputs,
    names_in,
    sequential,
    write_model,
    write_samples,
)


def compress(*args: Any, **options: Any) -> compressor.Result:
    """Compress without an ONNX file, which takes more than half of a tiny network's time."""
    return compressor.compress(*args, **{"format": ("pt2",), **options})


__all__ = [
    "BRIEFLY_TIMED",
    "CHANNELS",
    "CLASSES",
    "RESULT_FILES",
    "SIDE",
    "HardCoded",
    "TinyNet",
    "compress",
    "inputs",
    "names_in",
    "sequential",
    "write_model",
    "write_samples",
]
