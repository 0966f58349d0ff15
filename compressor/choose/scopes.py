"""Define which channels compete with each other."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from compressor.graph.network import Network
from compressor.records import Group

Scores = Mapping[str, npt.NDArray[np.float64]]
"""Group name -> one number per channel, [size]; the lowest go first."""

Scope = Callable[[Network, Sequence[Group], Scores], Scores]
"""A function from the groups' scores to what their channels are ranked by, across the network."""


def _within(same: Callable[[Network, Group], Hashable]) -> Scope:
    """Return a scope in which groups form a class if `same` is equal for them.

    Channels are ranked by their place in their class, 0 to 1, so that every class loses the same
    share.
    """

    def places(network: Network, groups: Sequence[Group], scores: Scores) -> Scores:
        classes: dict[Hashable, list[str]] = {}
        for group in groups:
            classes.setdefault(same(network, group), []).append(group.name)
        ranked: dict[str, npt.NDArray[np.float64]] = {}
        for names in classes.values():
            pooled = np.concatenate([scores[name] for name in names])
            ranks = (np.argsort(np.argsort(pooled, kind="stable")) + 0.5) / len(pooled)
            ends = np.cumsum([len(scores[name]) for name in names])
            ranked |= dict(zip(names, np.split(ranks, ends[:-1]), strict=True))
        return ranked

    return places


def _form(network: Network, group: Group) -> Hashable:
    """Return a key that is equal for groups of one role, size and shapes of members."""
    members = [
        (m.dim, m.contracted, tuple(dim.size for dim in network.tensors[m.tensor]))
        for m in group.members
    ]
    return group.role, group.size, tuple(sorted(members))


SCOPES: Mapping[str, Scope] = {
    "global": lambda network, groups, scores: scores,
    "layer": _within(lambda network, group: group.name),
    "isomorphic": _within(_form),
}
"""Scopes by name. Channels compete with all others, with those of their group, or with those of
groups of the same form (Fang et al. 2024, Isomorphic Pruning for Vision Models)."""
