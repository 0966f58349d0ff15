"""Trace a detached copy of a network to a `torch.export` program, its batch free where possible."""

from compressor.graph.trace.caches import restore_caches, switch_caches_off
from compressor.graph.trace.exports import follow_branches, silence_capture, unused_parameters
from compressor.graph.trace.tracing import (
    copy_detached,
    copy_to_cpu,
    learning_in,
    trace,
    trace_of,
)

__all__ = [
    "copy_detached",
    "copy_to_cpu",
    "follow_branches",
    "learning_in",
    "restore_caches",
    "silence_capture",
    "switch_caches_off",
    "trace",
    "trace_of",
    "unused_parameters",
]
