"""Find what may go from a network: its units, with the widths that each can have.

A unit's kind is the role of its channels; `kinds.KINDS` says which go without being asked for.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np
import numpy.typing as npt

from compressor.choose.kinds import KINDS, kinds_that_go
from compressor.choose.refusals import no_group, nothing_to_prune, unmatched
from compressor.choose.scopes import Scores
from compressor.graph.axes import Axis
from compressor.graph.groups import merge_links
from compressor.graph.network import Network, Tied
from compressor.records import Group

LEAST_SHARE = 0.1
"""The share of each unit's channels that stays at least; one channel always does."""


@dataclass(frozen=True)
class Unit:
    """What goes as one: the channels of a group, or those of groups that are linked.

    Attributes:
        groups: The groups, which lose channels together.
        widths: Numbers of channels that it may get down to, widest first.
        fixed: The number of channels that the user's --layer-ratio leave of it; None where the
            budget decides.
        times: How many channels of each group are one of the unit's.
    """

    groups: tuple[Group, ...]
    widths: tuple[int, ...] = ()
    fixed: int | None = None
    times: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.times:
            object.__setattr__(self, "times", (1,) * len(self.groups))

    @property
    def name(self) -> str:
        """Return the name of its first group, by which users know it."""
        return self.groups[0].name

    @property
    def kind(self) -> str:
        """Return its kind, a key of `KINDS`."""
        return self.groups[0].role

    @property
    def size(self) -> int:
        """Number of its channels: where its groups are of one size, that of each."""
        return self.groups[0].size // self.times[0]

    @property
    def least(self) -> int:
        """Return the smallest width that it may ever have."""
        each = zip(self.groups, self.times, strict=True)
        return max(least_of(self.size), *(-(-group.least // times) for group, times in each))

    @property
    def step(self) -> int:
        """Return the number of whose multiples its width must be, unless it stays whole."""
        each = zip(self.groups, self.times, strict=True)
        return math.lcm(*(g.step // math.gcd(g.step, times) for g, times in each))

    def axes(self, network: Network) -> list[Axis]:
        """Return the axes that get narrower with it."""
        return [network.axes[group.name] for group in self.groups]

    def counts(self, width: int) -> dict[str, int]:
        """Return how many channels each of its groups keeps at a width."""
        each = zip(self.groups, self.times, strict=True)
        return {group.name: width * times for group, times in each}

    def keep(self, scores: Scores, width: int) -> dict[str, tuple[int, ...]]:
        """Return the indices that each of its groups keeps at a width, ascending."""
        return {name: best(scores[name], count) for name, count in self.counts(width).items()}

    def ranks(self, of: Scores) -> npt.NDArray[np.float64]:
        """Return its channels' ranks, [size], the first to go first.

        Channels of linked groups go together in each one's own order; their rank is the mean.
        """
        each = [
            np.sort(of[group.name], kind="stable").reshape(self.size, times).mean(1)
            for group, times in zip(self.groups, self.times, strict=True)
        ]
        return np.asarray(np.mean(np.stack(each), axis=0))


@dataclass(frozen=True)
class Bounds:
    """What may go, as the user says.

    Attributes:
        protect: Globs of module or parameter names whose channels all stay.
        prune: Kinds that go beside those that do by default.
        layer_ratios: Pairs of a glob and the share of its channels that each unit loses whose
            producing layer matches; the last one that matches counts. They are not the budget's.
        round_to: Kept numbers are multiples of this number, or of each group's own; the groups' own
            numbers do not apply to units that `layer_ratios` decide about.
        floors: Numbers of channels that groups keep at least, beside `LEAST_SHARE` of what they
            have.
        keep_linked: Groups that user code takes to be of one size lose equal numbers.
    """

    protect: Sequence[str] = ()
    prune: Sequence[str] = ()
    layer_ratios: Sequence[tuple[str, float]] = ()
    round_to: int | Mapping[str, int] = 1
    floors: Mapping[str, int] | None = None
    keep_linked: bool = False

    def step(self, group: Group) -> int:
        """Return the number of whose multiples the group's width should be."""
        return self.round_to if isinstance(self.round_to, int) else self.round_to.get(group.name, 1)


def units_of(network: Network, bounds: Bounds) -> list[Unit]:
    """Return what may go of a network; linked groups of which a part must stay are left out.

    Raises:
        UsageError: A glob matches nothing.
        CompressorError: Nothing may go.
    """
    groups = prunable(network, bounds.protect, bounds.prune)
    linked = (*network.level, *(network.linked if bounds.keep_linked else ()))
    tied = {name for tie in network.tied for name in tie.groups}
    links = [Tied(n, (1,) * len(n)) for n in merge_links(linked) if not tied & set(n)]
    units = _join(groups, [*network.tied, *links])
    if not units:
        raise nothing_to_prune(network, bounds.protect, options_of_kinds(network))
    fixed = _fix(network, groups, units, bounds)
    return [unit if unit.fixed is not None else _with_widths(unit, bounds) for unit in fixed]


def prunable(network: Network, protect: Sequence[str], prune: Sequence[str]) -> list[Group]:
    """Return the groups that may lose channels; the arguments are those of `Bounds`.

    Raises:
        UsageError: A glob matches nothing.
        CompressorError: There is no such group.
    """
    protected = match_tensors(network, protect, "--protect")
    kinds = kinds_that_go(prune)
    found = [
        group
        for group in network.groups
        if group.role in kinds
        and group.size > 1
        and not any(member.tensor in protected for member in group.members)
    ]
    if not found:
        raise nothing_to_prune(network, protect, options_of_kinds(network))
    return found


def options_of_kinds(network: Network) -> list[str]:
    """Return the options that let more kinds of the network's units go."""
    kinds = sorted({group.role for group in network.groups})
    return [KINDS[kind].option for kind in kinds if KINDS[kind].option]


def _join(groups: Iterable[Group], linked: Sequence[Tied]) -> list[Unit]:
    """Return the units that groups make; linked ones of which a group is missing are left out."""
    by_name = {group.name: group for group in groups}
    bound = {name for link in linked for name in link.groups}
    whole = [
        Unit(tuple(by_name[name] for name in link.groups), times=link.times)
        for link in linked
        if set(link.groups) <= set(by_name)
    ]
    return whole + [Unit((group,)) for name, group in by_name.items() if name not in bound]


def _fix(
    network: Network, groups: Sequence[Group], units: Sequence[Unit], bounds: Bounds
) -> list[Unit]:
    """Return the units, with their widths where a layer's ratio is given.

    Raises:
        UsageError: A glob matches no unit.
    """
    shares: dict[str, float] = {}
    for glob, share in bounds.layer_ratios:
        hits = match_tensors(network, [glob], "--layer-ratio")
        found = [u.name for u in units if any(g.producer.tensor in hits for g in u.groups)]
        if not found:
            raise no_group(glob, share, hits, groups)
        shares |= dict.fromkeys(found, share)
    always = bounds.round_to if isinstance(bounds.round_to, int) else 1
    fixed = {u.name: _width_after(u, shares[u.name], always) for u in units if u.name in shares}
    return [replace(unit, fixed=fixed.get(unit.name)) for unit in units]


def _width_after(unit: Unit, share: float, step: int) -> int:
    """Return how many channels are left of a unit that loses a share of them."""
    left = max(unit.least, unit.size - math.floor(share * unit.size + 0.5))
    return _round(left, unit.size, _own_step(unit, step))


def _own_step(unit: Unit, step: int) -> int:
    """Return the step of a unit's widths whose first group has widths in steps of so many."""
    return math.lcm(step // math.gcd(step, unit.times[0]), unit.step)


def _with_widths(unit: Unit, bounds: Bounds) -> Unit:
    """Return the unit with the multiples of its step that it may get down to."""
    step, floors = _own_step(unit, bounds.step(unit.groups[0])), bounds.floors or {}
    each = zip(unit.groups, unit.times, strict=True)
    floor = max(-(-floors.get(group.name, 0) // times) for group, times in each)
    lowest = _round(max(unit.least, floor), unit.size, step)
    return replace(unit, widths=tuple(range((unit.size - 1) // step * step, lowest - 1, -step)))


def _round(count: int, size: int, step: int) -> int:
    """Round a count up to a multiple of a step, or to all channels."""
    return min(size, math.ceil(count / step) * step)


def least(group: Group) -> int:
    """Return the smallest number of channels that a group may ever keep."""
    return max(least_of(group.size), group.least)


def least_of(size: int) -> int:
    """Return the smallest number of so many channels that may ever be kept."""
    return max(1, math.ceil(LEAST_SHARE * size))


def best(scores: npt.NDArray[np.float64], count: int) -> tuple[int, ...]:
    """Return the indices of the `count` highest scores, ascending."""
    best = np.argsort(scores, kind="stable")[len(scores) - count :]
    return tuple(sorted(int(i) for i in best))


# -- names that users give -------------------------------------------------------------------------


def match_tensors(network: Network, globs: Sequence[str], option: str) -> set[str]:
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
            near = difflib.get_close_matches(glob, known, n=3, cutoff=0.3) or known[:3]
            raise unmatched(option, glob, near)
        found |= hits
    return (
        found
        | {alias for alias, stored in network.aliases.items() if stored in found}
        | {network.aliases[name] for name in found if name in network.aliases}
    )


def _with_owners(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]
