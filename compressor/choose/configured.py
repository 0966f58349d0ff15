"""Find which widths of a network its class's configuration can say, by changing it and looking."""

from __future__ import annotations

import itertools
import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from compressor.graph.axes import size_after
from compressor.graph.network import Network
from compressor.loading.configurations import Built, Configurations, Edits, Knob, Place
from compressor.records import Group

TOGETHER = 3
"""The most numbers of a configuration that are changed together."""

COARSEST = 8
"""How many steps of widths are tried, from the finest on, until the class takes them."""

TWICE, SAME = Fraction(2), Fraction(1)

Spot = tuple[str, int]
"""A tensor's name and a dimension."""


@dataclass(frozen=True)
class Found:
    """Groups that one or several numbers of a configuration hold.

    Attributes:
        knobs: The numbers; all change in one proportion.
        groups: The groups, whose widths change in it as well.
        steps: How many equal parts the widths have of which some may go.
    """

    knobs: tuple[Knob, ...]
    groups: tuple[Group, ...]
    steps: int

    @property
    def by(self) -> tuple[str, ...]:
        """Return the names of the numbers."""
        return tuple(knob.name for knob in self.knobs)


@dataclass(frozen=True)
class Search:
    """What is looked for, and what was learnt of the configuration's numbers.

    Attributes:
        configurations: Builds the class.
        network: The analysed network.
        wanted: The groups that may lose channels.
        base: The class as it is.
        pins: Numbers that the file leaves open, at their values: others would change them.
        touched: Number -> the dimensions that follow it, and the modules whose numbers do.
    """

    configurations: Configurations
    network: Network
    wanted: tuple[Group, ...]
    base: Built
    pins: Edits
    touched: Mapping[Knob, tuple[frozenset[Spot], frozenset[str]]]


def begin_search(
    configurations: Configurations, network: Network, kinds: Container[str]
) -> Search | None:
    """Learn what follows each number of the configuration; None where the class is not built.

    Args:
        configurations: Builds the network's class.
        network: Its analysis.
        kinds: Kinds of units that may go.
    """
    base = configurations.build({})
    if base is None:
        return None
    wanted = tuple(g for g in network.groups if g.role in kinds and g.size > 1)
    sizes = sorted({group.size for group in network.groups}, reverse=True)
    touched: dict[Knob, tuple[frozenset[Spot], frozenset[str]]] = {}
    pins: dict[Place, float] = {}
    for knob in configurations.knobs:
        for value in [knob.value] if knob.value is not None else sizes:
            known = Knob(knob.path, value)
            dims, modules = _touch(configurations, base, known)
            if dims or (modules and type(knob.value) is int):
                touched[known] = dims, modules
                if dims and not configurations.is_said(known):
                    pins[knob.path] = value
                break
    pinned = configurations.build(pins)
    if pinned is None or pinned.shapes != base.shapes:
        pins = {}
    return Search(configurations, network, wanted, base, pins, touched)


def _touch(
    configurations: Configurations, base: Built, knob: Knob
) -> tuple[frozenset[Spot], frozenset[str]]:
    """Return the dimensions, and the modules whose numbers, follow a number when it is changed.

    Nothing where a number that was left open is not this.
    """
    assert knob.value is not None
    nothing = frozenset[Spot](), frozenset[str]()
    if configurations.build({knob.path: knob.value}) != base:
        return nothing
    for value in (knob.value * 2, knob.value / 2, knob.value - 1, knob.value + 1):
        if value <= 0 or (type(knob.value) is int and value != int(value)):
            continue
        other = configurations.build({knob.path: type(knob.value)(value)})
        if other is not None:
            modules = {key[0] for key, n in other.numbers.items() if base.numbers.get(key) != n}
            return frozenset(_changed(base, other)), frozenset(modules)
    return nothing


def _changed(base: Built, other: Built) -> Iterator[Spot]:
    for name, shape in base.shapes.items():
        for dim, (old, new) in enumerate(zip(shape, other.shapes.get(name, ()), strict=False)):
            if old != new:
                yield name, dim


# -- the search ------------------------------------------------------------------------------------


def find_all(search: Search) -> list[Found]:
    """Find the groups whose widths the configuration holds, each group in one place."""
    all_held: list[Found] = []
    taken: set[str] = set()
    for group in search.wanted:
        if group.name not in taken:
            held = _find(search, group, taken)
            if held is not None:
                all_held.append(held)
                taken |= {each.name for each in held.groups}
    return all_held


def _find(search: Search, group: Group, taken: set[str]) -> Found | None:
    """Return what a group goes with, by the smallest number of numbers that hold it."""
    spots = {(member.tensor, member.dim) for member in group.members}
    homes = {member.tensor.rpartition(".")[0].rpartition(".")[0] for member in group.members}
    near = [k for k, (dims, modules) in search.touched.items() if dims & spots or modules & homes]
    for count in range(1, TOGETHER + 1):
        for knobs in itertools.combinations(near, count):
            held = _try(search, group, knobs, taken)
            if held is not None:
                return held
    return None


def _try(search: Search, group: Group, knobs: tuple[Knob, ...], taken: set[str]) -> Found | None:
    built = search.configurations.build({**search.pins, **scaled(knobs, TWICE)})
    if built is None:
        return None
    groups = _coupled(search, group, built, taken)
    if groups is None or not _is_cut(search, built, groups, TWICE):
        return None
    steps = math.gcd(*(each.size for each in groups), *filter(None, map(_whole, knobs)))
    for step in itertools.islice((n for n in range(1, steps) if steps % n == 0), COARSEST):
        count = steps // step
        shares = {Fraction(count - 1, count), Fraction(max(1, count // 2), count)}
        if all(_says(search, knobs, groups, share) for share in shares):
            return Found(knobs, tuple(groups), count)
    return None


def _whole(knob: Knob) -> int | None:
    return knob.value if isinstance(knob.value, int) else None


def _says(
    search: Search, knobs: tuple[Knob, ...], groups: Sequence[Group], share: Fraction
) -> bool:
    """Return whether numbers in a proportion say that groups keep just this share."""
    built = search.configurations.build({**search.pins, **scaled(knobs, share)})
    return built is not None and _is_cut(search, built, groups, share)


def _coupled(search: Search, group: Group, built: Built, taken: set[str]) -> list[Group] | None:
    """Return the groups, with the given one, that account for all that has changed, if any do.

    Where several groups stand in a dimension, one like the given is taken.
    """
    network, groups = search.network, [group]
    allowed = [each for each in search.wanted if each.name not in taken]
    at: dict[Spot, list[Group]] = {}
    for each in allowed:
        for member in each.members:
            at.setdefault((member.tensor, member.dim), []).append(each)
    known = network.tensors.keys() - network.aliases.keys()
    left = {spot for spot in _changed(search.base, built) if spot[0] in known}
    while True:
        left -= {(m.tensor, m.dim) for each in groups for m in each.members}
        if not left:
            return groups
        spot = min(left, key=lambda s: (len(at.get(s, ())), s))
        if spot not in at:
            return None
        groups.append(max(at[spot], key=lambda each: _likeness(network, each, group)))


def _likeness(network: Network, one: Group, other: Group) -> tuple[bool, ...]:
    return (
        one.role == other.role,
        one.size == other.size,
        _form(network, one) == _form(network, other),
    )


def _form(network: Network, group: Group) -> list[tuple[int, int]]:
    return sorted((m.dim, network.tensors[m.tensor][m.dim].size) for m in group.members)


def _is_cut(search: Search, built: Built, groups: Sequence[Group], share: Fraction) -> bool:
    """Return whether a class is what is left of the network where groups keep a share.

    Its numbers must not be computed from sizes: a softmax scale of a narrower head would be another
    one, where a cut keeps the old.
    """
    network = search.network
    sizes = {network.axes[group.name]: int(group.size * share) for group in groups}
    if built.shapes.keys() != search.base.shapes.keys():
        return False
    for name, shape in built.shapes.items():
        if name in network.tensors:
            dims = network.tensors[name]
            if shape != tuple(size_after(dim, sizes) for dim in dims):
                return False
        elif shape != search.base.shapes[name] and name not in network.aliases:
            return False
    return not any(
        type(number) is float and number != built.numbers.get(key)
        for key, number in search.base.numbers.items()
    ) and not _sizes_that_stay(search, built, groups)


def _sizes_that_stay(search: Search, built: Built, groups: Sequence[Group]) -> bool:
    """Return whether a module's number changes that is the size of a group that stays."""
    network = search.network
    going = {group.name for group in groups}
    sizes = {each.size for each in groups}
    staying: dict[str, set[int]] = {}
    for group in network.groups:
        if group.name not in going:
            for member in group.members:
                home = member.tensor.rpartition(".")[0].rpartition(".")[0]
                staying.setdefault(home, set()).add(group.size)
    return any(
        number in staying.get(key[0], ()) and number not in sizes
        for key, number in search.base.numbers.items()
        if number != built.numbers.get(key)
    )


def scaled(knobs: Iterable[Knob], share: Fraction) -> dict[Place, float]:
    """Return numbers of a configuration in a proportion."""
    return {knob.path: scale(knob, share) for knob in knobs}


def scale(knob: Knob, share: Fraction) -> float:
    """Return a number in a proportion; a fraction so that int() of it times a size is not short."""
    assert knob.value is not None
    if type(knob.value) is int:
        return int(knob.value * share)
    return float(knob.value * share) * (1 + 2**-40) if share < SAME else float(knob.value * share)
