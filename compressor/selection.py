"""Selection: scores and a budget become the kept channels of each group."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import numpy.typing as npt

from compressor.errors import CompressorError, UsageError
from compressor.network import Network
from compressor.records import Group

Scores = Mapping[str, npt.NDArray[np.float64]]
Keep = dict[str, tuple[int, ...]]

DEFAULT_ROLES = frozenset({"channels", "heads"})
LEAST_SHARE = 0.1
"""Of each group at least one channel and this share stay."""

Scope = Callable[[Network, Sequence[Group], Scores], Scores]
"""From the groups' scores to what their channels are ranked by, across the network."""


def _within(same: Callable[[Network, Group], Hashable]) -> Scope:
    """Groups for which `same` is equal form a class. Channels are ranked by their place in their
    class, 0 to 1, so that every class loses the same share."""

    def places(network: Network, groups: Sequence[Group], scores: Scores) -> Scores:
        classes: dict[Hashable, list[str]] = {}
        for group in groups:
            classes.setdefault(same(network, group), []).append(group.name)
        found: dict[str, npt.NDArray[np.float64]] = {}
        for names in classes.values():
            pooled = np.concatenate([scores[name] for name in names])
            ranks = (np.argsort(np.argsort(pooled, kind="stable")) + 0.5) / len(pooled)
            ends = np.cumsum([len(scores[name]) for name in names])
            found |= dict(zip(names, np.split(ranks, ends[:-1]), strict=True))
        return found

    return places


def _form(network: Network, group: Group) -> Hashable:
    """Equal for groups of one role and size whose members have the same shapes."""
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
"""Channels compete with all others, with those of their group, or with those of groups of the same
form (Fang et al. 2024, Isomorphic Pruning for Vision Models)."""

UNITS = ("macs", "params", "channels")


@dataclass(frozen=True)
class Choice:
    """The kept indices of each group that loses some, and what is left of the budget's unit."""

    keep: Keep
    unit: str
    before: int
    after: int

    @property
    def removed(self) -> float:
        """Share of the whole network's total that is removed, 0 to 1."""
        return 1 - self.after / self.before


def select(
    network: Network,
    scores: Scores,
    *,
    ratio: float | None,
    of: str = "macs",
    scope: str = "global",
    layer_ratios: Sequence[tuple[str, float]] = (),
    losses: Scores | None = None,
    protect: Sequence[str] = (),
    prune: Sequence[str] = (),
    round_to: int = 1,
    best_effort: bool = False,
    keep_linked: bool = False,
) -> Choice:
    """Drop the lowest-ranked channels until `ratio` of the network's total is gone.

    Args:
        network: The analysed network.
        scores: Per group one number per channel, comparable across groups.
        ratio: Share to remove of the whole network's `of`, protected parts included; it is met to
            within one channel (one rounding step, with `round_to`). None: only what `layer_ratios`
            say.
        of: "macs" of one sample, "params" or "channels".
        scope: A key of `SCOPES`.
        layer_ratios: Pairs of a glob and the share of its channels that each group loses whose
            producing layer matches; the last one that matches counts. The others meet the ratio.
        losses: Per group the loss when 1, 2, ... of its channels are dropped, never falling;
            infinite where they must not be. The ratio is then met at the smallest loss that no
            group exceeds, and the scores only say which channels of a group go.
        protect: Globs of module or parameter names whose channels all stay.
        prune: Roles to prune beside channels and heads ("stream", "head_width").
        round_to: Kept counts are multiples of it.
        best_effort: Take what is reachable where the ratio is not.
        keep_linked: Groups that user code takes to be of one size lose equal numbers.

    Raises:
        UsageError: A glob matches nothing.
        CompressorError: Nothing can be pruned, or the ratio is out of reach, or `layer_ratios`
            alone remove more.
    """
    groups = prunable(network, protect, prune)
    units = _units(groups, network.linked if keep_linked else ())
    if not units:
        raise _nothing_to_prune(network, protect)
    fixed = _fixed(network, groups, units, layer_ratios)
    free = [unit for unit in units if unit[0].name not in fixed and ratio is not None]
    order = np.empty(0, np.int64)
    if free:
        competing = [group for unit in free for group in unit]
        order = _ranking(free, losses or SCOPES[scope](network, competing, scores))
    before = network.cost.of(of)

    def counts(dropped: int) -> dict[str, int]:
        taken = np.bincount(order[:dropped], minlength=len(free))
        left = {
            group.name: group.size - int(count)
            for unit, count in zip(free, taken, strict=True)
            for group in unit
        }
        return {
            group.name: _rounded((fixed | left).get(group.name, group.size), group, round_to)
            for group in groups
        }

    def cost(dropped: int) -> int:
        return network.cost.of(of, network.sizes(counts(dropped)))

    target = before * (1 - (ratio or 0))
    least, most = cost(len(order)), cost(0)
    if ratio is None and most == before:
        raise _removes_nothing()
    if ratio is not None and not best_effort:
        if least > target:
            raise _out_of_reach(ratio, of, 1 - least / before, bool(fixed), losses is not None)
        if most < target:
            raise _overshot(ratio, of, 1 - most / before)
    dropped = _first(len(order), lambda n: cost(n) <= target)
    kept = counts(dropped)
    return Choice(
        keep={
            group.name: best(scores[group.name], kept[group.name])
            for unit in units
            for group in unit
            if kept[group.name] < group.size
        },
        unit=of,
        before=before,
        after=cost(dropped),
    )


def _units(groups: Sequence[Group], linked: Sequence[Sequence[str]]) -> list[list[Group]]:
    """Groups that lose their channels together; linked ones of which a part may not be pruned are
    left out."""
    by_name = {group.name: group for group in groups}
    bound = {name for link in linked for name in link}
    whole = [[by_name[n] for n in link] for link in linked if all(n in by_name for n in link)]
    return whole + [[group] for group in groups if group.name not in bound]


def _fixed(
    network: Network,
    groups: Sequence[Group],
    units: Sequence[Sequence[Group]],
    layer_ratios: Sequence[tuple[str, float]],
) -> dict[str, int]:
    """How many channels are kept of each group that a layer's ratio is given for."""
    shares: dict[str, float] = {}
    for glob, share in layer_ratios:
        hits = _matched(network, [glob], "--layer-ratio")
        found = [unit for unit in units if any(g.producer.tensor in hits for g in unit)]
        if not found:
            raise _no_group(glob, share, hits, groups)
        shares |= {group.name: share for unit in found for group in unit}
    return {
        group.name: max(
            _least(group), group.size - math.floor(shares[group.name] * group.size + 0.5)
        )
        for group in groups
        if group.name in shares
    }


def _ranking(units: Sequence[Sequence[Group]], ranked_by: Scores) -> npt.NDArray[np.int64]:
    """Which unit loses its next channel (one of each of its groups), in order; the least share of
    each group is left out."""
    owners, ranks, places = [], [], []
    for number, unit in enumerate(units):
        removable = unit[0].size - _least(unit[0])
        each = [np.sort(ranked_by[group.name], kind="stable")[:removable] for group in unit]
        ranks.append(np.mean(np.stack(each), axis=0))
        owners.append(np.full(removable, number))
        places.append(np.arange(removable))
    ranked = np.concatenate(ranks)
    order = np.lexsort((np.concatenate(owners), np.concatenate(places), ranked))
    return np.asarray(np.concatenate(owners)[order[np.isfinite(ranked[order])]])


def _least(group: Group) -> int:
    return max(1, math.ceil(LEAST_SHARE * group.size))


def _rounded(count: int, group: Group, step: int) -> int:
    return min(group.size, math.ceil(count / step) * step)


def best(scores: npt.NDArray[np.float64], count: int) -> tuple[int, ...]:
    """The indices of the highest scores, ascending."""
    best = np.argsort(scores, kind="stable")[len(scores) - count :]
    return tuple(sorted(int(i) for i in best))


def _first(most: int, holds: Callable[[int], bool]) -> int:
    """The smallest number for which a monotone condition holds, or `most`."""
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


# -- what may be pruned --------------------------------------------------------------------------


def prunable(network: Network, protect: Sequence[str], prune: Sequence[str]) -> list[Group]:
    """The groups that may lose channels; arguments as for `select`.

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
        raise _nothing_to_prune(network, protect)
    return found


def _matched(network: Network, globs: Sequence[str], option: str) -> set[str]:
    """Tensors whose own name, or that of a module around them, matches a glob."""
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


def _nothing_to_prune(network: Network, globs: Sequence[str]) -> CompressorError:
    other = sorted({g.role for g in network.groups} - DEFAULT_ROLES)
    reasons = list(dict.fromkeys(f"{p.reason} ({p.place})" for p in network.protections))[:5]
    steps = [f"--prune {role}" for role in other if role == "stream"]
    steps += ["protect less"] if globs else []
    return CompressorError(
        "there is no group of channels to prune",
        where="; ".join(reasons) or "the network has no parameters with free channels",
        consequence="the network stays as it is",
        next_step=" or ".join(steps) or "see the reasons above; another network may suit",
    )


def _no_group(glob: str, share: float, hits: set[str], groups: Sequence[Group]) -> UsageError:
    coupled = [
        g.layer for g in groups if any(m.tensor in hits and not m.contracted for m in g.members)
    ]
    instead = f"--layer-ratio '{coupled[0]}={share:g}'" if coupled else ""
    return UsageError(
        f"--layer-ratio {glob!r} matches no layer that makes channels of its own that are pruned",
        where=f"its channels go with those of {', '.join(dict.fromkeys(coupled))}"
        if coupled
        else "",
        consequence="nothing is pruned",
        next_step=instead or "compress inspect shows what can be pruned",
    )


def _removes_nothing() -> UsageError:
    return UsageError(
        "--layer-ratio alone removes nothing",
        where="no share that it gives is as much as one channel",
        consequence="nothing is pruned",
        next_step="give larger shares, or --ratio for the other layers",
    )


def _overshot(ratio: float, of: str, removed: float) -> CompressorError:
    return CompressorError(
        f"--layer-ratio alone removes {removed:.3f} of the {of}, more than --ratio {ratio:g}",
        where="the other layers would keep all their channels",
        consequence="nothing is pruned",
        next_step="leave --ratio out for just that, or give --best-effort or smaller shares",
    )


def _out_of_reach(
    ratio: float, of: str, reachable: float, fixed: bool, measured: bool
) -> CompressorError:
    floor = math.floor(reachable * 1000) / 1000
    return CompressorError(
        f"--ratio {ratio:g} of the {of} is out of reach: at most {floor:.3f} can be removed",
        where="each group keeps a tenth of its channels, and protected parts keep all"
        + (", and the layers of --layer-ratio what that says" if fixed else "")
        + (", and no layer is cut further than it was measured" if measured else ""),
        consequence="nothing is pruned",
        next_step=f"--ratio {floor:g}, --best-effort, or --prune stream for more groups",
    )
