"""Let the mixtures of experts of the transformers library be captured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from compressor.graph.trace.caches import configurations_in

SWITCH = "_experts_implementation_internal"
"""The attribute of a configuration that says how rows get to their experts."""

GROUPED = "grouped_mm"
"""The way that sorts rows by expert: a loop over the experts that are hit cannot be captured, and a
weight for each row takes memory without bounds."""


@contextmanager
def grouped_experts(module: nn.Module) -> Iterator[None]:
    """Let rows get to their experts in groups inside the block, and as it was said afterwards."""
    said = [(c, getattr(c, SWITCH)) for _, c in configurations_in(module) if hasattr(c, SWITCH)]
    try:
        for config, _ in said:
            setattr(config, SWITCH, GROUPED)
        yield
    finally:
        for config, before in reversed(said):
            setattr(config, SWITCH, before)
