"""Tracing: a detached copy becomes a `torch.export` program, its batch free where possible."""

from compressor.trace.tracing import (
    branches_followed,
    detached_copy,
    quiet_capture,
    trace,
    trace_of,
    unused_parameters,
)

__all__ = [
    "branches_followed",
    "detached_copy",
    "quiet_capture",
    "trace",
    "trace_of",
    "unused_parameters",
]
