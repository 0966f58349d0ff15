"""Form groups: every free axis of the solved dimensions, with the places where it stands."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from compressor.graph.axes import Axis, Dim, leaves
from compressor.graph.mixtures import EXPERTS, Routings
from compressor.graph.network import Shape
from compressor.graph.rules import reasons
from compressor.graph.solver import Reason, Solver
from compressor.records import Group, Member, Protection, producer

_EXACT = ("channels", "heads")


@dataclass(frozen=True)
class Uses:
    """What operators do with dimensions, noted as a program is walked over.

    Attributes:
        contracted: Dimensions of weights that are summed over.
        computed: Dimensions that are summed over of what is no parameter itself but computed, from
            parameters (weights) or from data too (a mixture of kernels, chosen per sample).
        statistics: Dimensions that a statistic across channels runs over.
        heads: Dimensions of attention's heads.
        head_width: Dimensions of the widths of attention's heads.
        equal: Pieces that user code takes to be of one size.
        level: Pieces that operators want to be of one size.
        routings: What they have to do with experts that data choose.
        remarks: Layer -> what the user should know of how its dimensions depend on each other.
    """

    contracted: set[Dim] = field(default_factory=set)
    computed: set[Dim] = field(default_factory=set)
    statistics: list[Dim] = field(default_factory=list)
    heads: list[Dim] = field(default_factory=list)
    head_width: list[Dim] = field(default_factory=list)
    equal: list[tuple[Dim, ...]] = field(default_factory=list)
    level: list[tuple[Dim, ...]] = field(default_factory=list)
    routings: Routings = field(default_factory=Routings)
    remarks: dict[str, str] = field(default_factory=dict)

    def roles(self, solver: Solver) -> dict[Axis, str]:
        """Return the role of each axis that has another one than "channels"."""
        # Later rows win over earlier ones.
        table = (
            ("heads", self.heads),
            ("stream", self.statistics),
            ("head_width", self.head_width),
            (EXPERTS, self.routings.least(solver)),
        )
        return {
            axis: role
            for role, dims in table
            for dim in dims
            for axis in leaves(solver.normal(dim))
        }

    def consumed_by_computed(self, solver: Solver, stored: set[Dim]) -> set[Axis]:
        """Return the axes that are summed over by weights which are computed from parameters.

        Zeros in such a parameter need not be zeros in the weight.

        Args:
            solver: Has the solved form of dimensions.
            stored: The dimensions of stored tensors.
        """
        computed = self.computed | (self.contracted - stored)
        return {axis for dim in computed for axis in leaves(solver.normal(dim))}

    def linked(self, solver: Solver, axes: Mapping[str, Axis]) -> tuple[tuple[str, ...], ...]:
        """Return sets of groups, by name, that must keep equal numbers of channels.

        That is wherever user code wants pieces of one size.
        """
        columns: list[Iterable[Axis]] = []
        for pieces in self.equal:
            found = [list(leaves(solver.normal(piece))) for piece in pieces]
            if found and len({tuple(axis.size for axis in piece) for piece in found}) == 1:
                columns += zip(*found, strict=True)
        return _linked_by_name(columns, axes)

    def settle_experts(self, solver: Solver) -> None:
        """Protect in `solver` what was to be kept unless it is experts, and is used otherwise."""
        summed = (*self.contracted, *self.computed, *self.statistics)
        self.routings.settle(solver, (*summed, *self.heads, *self.head_width))

    def settle_levels(self, solver: Solver) -> None:
        """Make each of the pieces of one size a plain axis, or protect them, in `solver`.

        Pieces that are taken apart lose the same positions; where one stays whole, all do.
        """
        settled = False
        while not settled:
            settled = True
            for pieces in self.level:
                found = list(dict.fromkeys(map(solver.normal, pieces)))
                kept = [piece for piece in found if solver.is_kept(piece)]
                if len(found) == len(kept) or len(found) < 2:
                    continue
                if all(isinstance(piece, Axis) for piece in found) and not kept:
                    continue
                settled = False
                reason = solver.reason(kept[0]) if kept else Reason(reasons.LEVEL)
                for piece in found[1:]:
                    solver.unify(found[0], piece, reason)
                for piece in found if kept else ():
                    solver.protect(piece, reason)

    def levelled(self, solver: Solver, axes: Mapping[str, Axis]) -> tuple[tuple[str, ...], ...]:
        """Return sets of groups, by name, of which operators want equal numbers of channels."""
        return _linked_by_name([map(_only_axis, map(solver.normal, p)) for p in self.level], axes)


def _only_axis(dim: Dim) -> Axis:
    """Return a dimension that is a single axis, or its first one: the others are alike then."""
    return next(leaves(dim))


def _linked_by_name(
    columns: Iterable[Iterable[Axis]], axes: Mapping[str, Axis]
) -> tuple[tuple[str, ...], ...]:
    """Return the sets of groups, by name, whose axes stand in one column; sets that meet are one.

    Args:
        columns: Axes that go with each other.
        axes: Group name -> the group's axis.
    """
    names = {axis: name for name, axis in axes.items()}
    links = ([names[axis] for axis in column if axis in names] for column in columns)
    return tuple(tuple(sorted(link)) for link in merge_links(links) if len(link) > 1)


def merge_links(links: Iterable[Sequence[str]]) -> list[tuple[str, ...]]:
    """Return links as sets that share no group, in order."""
    merged: list[tuple[str, ...]] = []
    for link in links:
        touching = [other for other in merged if set(other) & set(link)]
        merged = [other for other in merged if other not in touching]
        merged.append(tuple(dict.fromkeys(name for each in (*touching, link) for name in each)))
    return merged


def form_groups(
    solver: Solver, tensors: Mapping[str, Shape], parameters: Container[str], uses: Uses
) -> tuple[dict[str, Axis], tuple[Group, ...]]:
    """Form the groups from the solved dimensions of the stored tensors.

    Args:
        solver: Has the solved form of dimensions.
        tensors: Dimensions by tensor, without tensors that are tied to others.
        parameters: The names of those that are parameters; an axis in none of them forms no group.
        uses: What operators do with dimensions.

    Returns:
        The axes by group name, and the groups.
    """
    members: dict[Axis, list[Member]] = {}
    for name, shape in tensors.items():
        for i, dim in enumerate(shape):
            member = Member(name, i, dim in uses.contracted)
            for axis in dict.fromkeys(leaves(solver.normal(dim))):
                if not solver.is_kept(axis):
                    members.setdefault(axis, []).append(member)
    roles, least = uses.roles(solver), uses.routings.least(solver)
    steps = uses.routings.steps(solver)
    computed = uses.consumed_by_computed(solver, {d for shape in tensors.values() for d in shape})
    axes: dict[str, Axis] = {}
    groups: list[Group] = []
    for axis, found in members.items():
        if not any(member.tensor in parameters for member in found):
            continue
        role = roles.get(axis, "channels")
        name = _group_name(found, role, axes)
        axes[name] = axis
        exact = role in _EXACT and axis not in computed
        bounds = least.get(axis, 1), steps.get(axis, 1)
        groups.append(Group(name, axis.size, role, tuple(found), exact, *bounds))
    return axes, tuple(groups)


def _group_name(members: Sequence[Member], role: str, taken: Container[str]) -> str:
    """Name a group after the first layer that produces its channels.

    The role tells two axes of one dimension apart; else a number does.
    """
    first = producer(members)
    base = f"{first.tensor}:{first.dim}"
    if role != "channels":
        base += f" {role}"
    name, count = base, 2
    while name in taken:
        name, count = f"{base} #{count}", count + 1
    return name


def list_protections(
    solver: Solver, tensors: Mapping[str, Shape], parameters: Container[str]
) -> tuple[Protection, ...]:
    """Return the protected axes of the parameters' dimensions, by reason, without kernel sizes."""
    found: dict[Reason, tuple[list[str], int]] = {}
    for name in (n for n in tensors if n in parameters):
        for i, dim in enumerate(tensors[name]):
            for axis in leaves(solver.normal(dim)):
                reason = solver.reason(axis)
                if axis.size > 1 and solver.is_kept(axis) and reason.text != reasons.KERNEL:
                    where, size = found.get(reason, ([], 0))
                    found[reason] = ([*where, f"{name}:{i}"], max(size, axis.size))
    return tuple(
        Protection(tuple(where), size, reason.text, reason.place)
        for reason, (where, size) in found.items()
    )
