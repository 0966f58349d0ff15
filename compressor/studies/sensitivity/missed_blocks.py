"""Measure what a network is worth without each of its blocks alone, unrepaired."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from compressor.choose.blocks import removable, saved_by
from compressor.choose.curves import MissedBlock
from compressor.graph.blocks import Block, find_blocks
from compressor.graph.network import Network
from compressor.records import Trace
from compressor.slicing import as_module
from compressor.slicing.shortening import shorten


def why_not(trace: Trace, batches: Sequence[int]) -> str:
    """Return in words why blocks cannot be left out of the traced operators; "" where they can.

    Args:
        trace: The traced network.
        batches: The sizes of the batches that are measured on.
    """
    if trace.branched:
        return "the network branches on values, and one of the branches is captured"
    if trace.ends_after:
        return "the captured operators end where data decide the sizes of what follows"
    if trace.batch_symbol is None and set(batches) != {trace.batch}:
        return f"the network is captured for a batch of {trace.batch} alone (--batch-size)"
    return ""


def blocks_to_miss(trace: Trace, network: Network, protect: Sequence[str]) -> list[Block]:
    """Return the blocks of a traced network that may go, in the order of execution.

    Raises:
        UsageError: A glob of `protect` matches nothing.
    """
    return removable(network, find_blocks(trace.program), protect)


def measure_without(
    trace: Trace, network: Network, block: Block, measure: Callable[[nn.Module], float]
) -> MissedBlock:
    """Measure the traced network without one block; the network is not changed.

    Args:
        trace: The traced network.
        network: Its analysis.
        block: A block of its program.
        measure: Returns the metric of a module that is called as the network is.
    """
    shorter = as_module(shorten(trace.program, [block]).program)
    macs, params = (saved_by(network, block, unit) for unit in ("macs", "params"))
    return MissedBlock(block.name, block.place, macs, params, measure(shorter))
