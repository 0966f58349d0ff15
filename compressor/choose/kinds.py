"""List the kinds of what may go, and which of them go without being asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from compressor.graph.mixtures import EXPERTS


@dataclass(frozen=True)
class Kind:
    """A kind of unit.

    Attributes:
        by_default: Whether such units may go without being asked for.
        option: The option that lets them go; "" where there is none.
    """

    by_default: bool
    option: str = ""


BLOCK = "block"
"""The kind of unit that is a whole branch; it is no role of channels (`choose.blocks`)."""

KINDS: Mapping[str, Kind] = {
    "channels": Kind(by_default=True),
    "heads": Kind(by_default=True),
    "stream": Kind(by_default=False, option="--prune stream"),
    "head_width": Kind(by_default=False, option="--prune head_width"),
    EXPERTS: Kind(by_default=False, option="--prune experts"),
    BLOCK: Kind(by_default=False, option="--prune block"),
}
"""Kinds of units by name, which is the role of their channels."""


def kinds_that_go(prune: Iterable[str]) -> frozenset[str]:
    """Return the kinds that may go: those that do by default, and those that are asked for."""
    return frozenset({name for name, kind in KINDS.items() if kind.by_default} | set(prune))
