"""Say which blocks of a network may go, and what each of them saves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase

from compressor.choose.budget import LATENCY, Clock
from compressor.choose.units import match_tensors
from compressor.graph.blocks import Block
from compressor.graph.network import Network


def removable(network: Network, blocks: Sequence[Block], protect: Sequence[str]) -> list[Block]:
    """Return the blocks that may go: none of their tensors is protected.

    Args:
        network: The analysed network.
        blocks: The blocks that there are.
        protect: Globs of names of modules and parameters that stay; those of blocks count too.

    Raises:
        UsageError: A glob matches no module and no parameter.
    """
    protected = match_tensors(network, protect, "--protect")
    return [
        block
        for block in blocks
        if not block.tensors & protected
        and not any(fnmatchcase(block.name, glob) for glob in protect)
    ]


def saved_by(network: Network, block: Block, unit: str, clock: Clock | None = None) -> float:
    """Return the share of a network's cost that goes with a block alone, between 0 and 1.

    Args:
        network: The analysed network, with all its channels.
        block: A block of it.
        unit: A key of `UNITS`; "channels" are weighed by their multiply-adds.
        clock: Predicts latency in milliseconds; needed for that unit alone.
    """
    if unit == LATENCY:
        assert clock is not None
        layers = [layer for layer in clock.layers if layer.name in block.nodes]
        return clock.layers_ms(layers, {}) / clock.latency_ms({})
    if unit == "params":
        costs = {n: math.prod(d.size for d in network.tensors[n]) for n in network.cost.tensors}
        going = block.tensors
    else:
        costs, going = network.cost.macs_by_node(), block.nodes
    return sum(costs.get(name, 0) for name in going) / max(1, sum(costs.values()))
