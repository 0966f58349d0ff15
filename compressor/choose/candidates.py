"""Find the groups that may lose channels, and how many of them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from fnmatch import fnmatchcase

from compressor.choose.refusals import DEFAULT_ROLES, no_group, nothing_to_prune
from compressor.errors import UsageError
from compressor.graph.network import Network
from compressor.records import Group

LEAST_SHARE = 0.1
"""The share of each group's channels that stays at least; one channel always does."""


def prunable(network: Network, protect: Sequence[str], prune: Sequence[str]) -> list[Group]:
    """Return the groups that may lose channels; the arguments are as for `select`.

    Raises:
        UsageError: A glob matches nothing.
        CompressorError: There is no such group.
    """
    protected = _matched(network, protect, "--protect")
    roles = DEFAULT_ROLES | set(prune)
    found = [
        group
        for group in network.groups
        if group.role in roles
        and group.size > 1
        and not any(member.tensor in protected for member in group.members)
    ]
    if not found:
        raise nothing_to_prune(network, protect)
    return found


def _matched(network: Network, globs: Sequence[str], option: str) -> set[str]:
    """Return the tensors whose own name, or that of a module around them, matches a glob.

    Raises:
        UsageError: A glob matches nothing.
    """
    names = {tensor: _with_owners(tensor) for tensor in network.tensors}
    found: set[str] = set()
    for glob in globs:
        hits = {t for t, around in names.items() if any(fnmatchcase(n, glob) for n in around)}
        if not hits:
            known = sorted({name for around in names.values() for name in around})
            near = difflib.get_close_matches(glob, known, n=3, cutoff=0.3)
            raise UsageError(
                f"{option} {glob!r} matches no module or parameter",
                consequence="nothing is pruned, since it would not be as you want it",
                next_step=f"nearest names: {', '.join(near or known[:3])}",
            )
        found |= hits
    return (
        found
        | {alias for alias, stored in network.aliases.items() if stored in found}
        | {network.aliases[name] for name in found if name in network.aliases}
    )


def _with_owners(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def units(groups: Sequence[Group], linked: Sequence[Sequence[str]]) -> list[list[Group]]:
    """Return the groups that lose their channels together, as lists.

    Linked groups of which a part may not be pruned are left out.
    """
    by_name = {group.name: group for group in groups}
    bound = {name for link in linked for name in link}
    whole = [[by_name[n] for n in link] for link in linked if all(n in by_name for n in link)]
    return whole + [[group] for group in groups if group.name not in bound]


def fixed_counts(
    network: Network,
    groups: Sequence[Group],
    units: Sequence[Sequence[Group]],
    layer_ratios: Sequence[tuple[str, float]],
) -> dict[str, int]:
    """Return how many channels are kept of each group that a layer's ratio is given for.

    Raises:
        UsageError: A glob matches no group.
    """
    shares: dict[str, float] = {}
    for glob, share in layer_ratios:
        hits = _matched(network, [glob], "--layer-ratio")
        found = [unit for unit in units if any(g.producer.tensor in hits for g in unit)]
        if not found:
            raise no_group(glob, share, hits, groups)
        shares |= {group.name: share for unit in found for group in unit}
    return {
        group.name: max(
            least(group), group.size - math.floor(shares[group.name] * group.size + 0.5)
        )
        for group in groups
        if group.name in shares
    }


def least(group: Group) -> int:
    return max(1, math.ceil(LEAST_SHARE * group.size))


def narrower(group: Group, step: int, floor: int = 0) -> list[int]:
    """Return the widths that a group may get down to, widest first.

    They are multiples of a step, and not below `floor` or the least that every group keeps.
    """
    lowest = rounded(max(least(group), floor), group, step)
    return list(range((group.size - 1) // step * step, lowest - 1, -step))


def rounded(count: int, group: Group, step: int) -> int:
    """Round a count up to a multiple of a step, or to all channels of the group."""
    return min(group.size, math.ceil(count / step) * step)
