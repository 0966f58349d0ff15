"""Tiny networks and files, which the tools share."""

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

__all__ = [
    "BRIEFLY_TIMED",
    "CHANNELS",
    "CLASSES",
    "RESULT_FILES",
    "SIDE",
    "HardCoded",
    "TinyNet",
    "inputs",
    "names_in",
    "sequential",
    "write_model",
    "write_samples",
]
