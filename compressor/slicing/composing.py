"""Compose several cuts, one after the other, into one cut of the original."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from compressor.errors import CompressorError
from compressor.graph.axes import coordinates
from compressor.graph.network import Network
from compressor.slicing import kept_indices

Indices = Mapping[str, Mapping[int, tuple[int, ...]]]
"""Tensor -> dimension -> kept indices, for the dimensions that shrink."""


def compose(first: Indices, then: Indices) -> dict[str, dict[int, tuple[int, ...]]]:
    """Compose two cuts: return what both keep of the original.

    Args:
        first: What the first cut keeps of the original.
        then: What the second keeps, as indices into what the first left.
    """
    composed = {name: dict(dims) for name, dims in first.items()}
    for name, dims in then.items():
        for dim, kept in dims.items():
            before = composed.setdefault(name, {}).get(dim)
            composed[name][dim] = kept if before is None else tuple(before[i] for i in kept)
    return composed


def keep_of(network: Network, indices: Indices) -> dict[str, tuple[int, ...]]:
    """Return the kept channels of the network's groups, from the kept indices of its tensors.

    Raises:
        CompressorError: No choice of channels keeps just these indices.
    """
    keep: dict[str, tuple[int, ...]] = {}
    for group in network.groups:
        tensor, dim = group.producer.tensor, group.producer.dim
        kept = indices.get(network.aliases.get(tensor, tensor), {}).get(dim)
        if kept is not None:
            where = coordinates(network.tensors[tensor][dim], network.axes[group.name])
            left = np.unique(where[list(kept)])
            channels = tuple(int(i) for i in left[left >= 0])
            if len(channels) < group.size:
                keep[group.name] = channels
    again = kept_indices(network, network.masks(keep))
    wrong = sorted(name for name in {*again, *indices} if again.get(name) != indices.get(name))
    if wrong:
        raise CompressorError(
            "the cuts of several steps are no single cut of the original",
            where=", ".join(wrong[:3]),
            consequence="nothing was written",
            next_step="prune in one step (--steps 1); please report the network",
        )
    return keep
