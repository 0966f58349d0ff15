"""Take the kept channels from an existing plan, instead of choosing them."""

from __future__ import annotations

from compressor.errors import CompressorError
from compressor.graph.network import Network
from compressor.records import Plan
from compressor.slicing import group_entries, kept_indices

Keep = dict[str, tuple[int, ...]]


def keep_of_plan(given: Plan, network: Network) -> Keep:
    """Return the channels that a plan keeps: group name -> indices.

    Raises:
        CompressorError: What the plan says of the groups does not fit this network, or itself.
    """
    try:
        keep = {name: tuple(entry["keep"]) for name, entry in given.groups.items()}
        _check_channels(keep, network)
        masks = network.masks(keep)
        if group_entries(network, keep) != given.groups:
            raise ValueError("sizes or roles of groups differ")
        if kept_indices(network, masks) != given.tensors:
            raise ValueError("its tensors are not cut as its groups are")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CompressorError(
            f"the plan does not fit the network's groups of channels: {error}",
            where="--plan",
            consequence="nothing is pruned",
            next_step="give the plan as compress wrote it, and the --input it was made with",
        ) from None
    return keep


def _check_channels(keep: Keep, network: Network) -> None:
    sizes = {group.name: group.size for group in network.groups}
    for name, kept in keep.items():
        if name not in sizes:
            raise ValueError(f"there is no group {name}")
        if not kept or not set(kept) <= set(range(sizes[name])):
            raise ValueError(f"{name} has no such channels")
