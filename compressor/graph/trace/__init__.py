"""Trace a detached copy of a network to a `torch.export` program, its batch free where possible."""

from compressor.graph.trace.caches import caches_as_before
from compressor.graph.trace.exports import branches_followed, quiet_capture, unused_parameters
from compressor.graph.trace.tracing import (
    copied_to_cpu,
    detached_copy,
    learning_in,
    trace,
    trace_of,
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
