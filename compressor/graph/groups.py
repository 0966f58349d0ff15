"""Form groups: every free axis of the solved dimensions, with the places where it stands."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

from compressor.graph.axes import Axis, Dim, leaves
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
    """

    contracted: set[Dim] = field(default_factory=set)
    computed: set[Dim] = field(default_factory=set)
    statistics: list[Dim] = field(default_factory=list)
    heads: list[Dim] = field(default_factory=list)
    head_width: list[Dim] = field(default_factory=list)
    equal: list[tuple[Dim, ...]] = field(default_factory=list)

    def roles(self, solver: Solver) -> dict[Axis, str]:
        """Return the role of each axis that has another one than "channels"."""
        # Later rows win over earlier ones.
        table = (
            ("heads", self.heads),
            ("stream", self.statistics),
            ("head_width", self.head_width),
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
        names = {axis: name for name, axis in axes.items()}
        sets: list[set[str]] = []
        for pieces in self.equal:
            found = [list(leaves(solver.normal(piece))) for piece in pieces]
            if not found or len({tuple(axis.size for axis in piece) for piece in found}) > 1:
                continue
            for column in zip(*found, strict=True):
                link = {names[axis] for axis in column if axis in names}
                touching = [other for other in sets if other & link]
                sets = [other for other in sets if not other & link]
                sets.append(link.union(*touching))
        return tuple(tuple(sorted(link)) for link in sets if len(link) > 1)


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
    roles = uses.roles(solver)
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
        groups.append(Group(name, axis.size, role, tuple(found), exact))
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
