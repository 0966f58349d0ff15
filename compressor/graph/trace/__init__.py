"""Trace a detached copy of a network to a `torch.export` program, its batch free where possible."""

from compressor.graph.trace.caches import caches_as_before
from compressor.graph.trace.tracing import (
    branches_followed,
    copied_to_cpu,
    detached_copy,
    learning_in,
    quiet_capture,
    trace,
    trace_of,
    unused_parameters,
)

__all__ = [
    "branches_followed",
    "caches_as_before",
    "copied_to_cpu",
    "detached_copy",
    "learning_in",
    "quiet_capture",
    "trace",
    "trace_of",
    "unused_parameters",
]
