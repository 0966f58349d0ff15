"""Say in words why a group keeps what it keeps."""

from __future__ import annotations

from compressor.choose.kinds import KINDS
from compressor.choose.scopes import Scores
from compressor.choose.selection import Choice
from compressor.records import Group


def reason_of(group: Group, choice: Choice, scores: Scores) -> str:
    """Return one line on why a group of the network keeps what it keeps."""
    kept = len(choice.keep.get(group.name, range(group.size)))
    unit = choice.unit_of(group.name)
    if unit is None:
        return _why_not_asked(group)
    if unit.fixed is not None:
        return "as --layer-ratio says"
    if not unit.widths:
        return "too narrow for a step"
    ordered = sorted(float(score) for score in scores[group.name])
    if kept <= unit.counts(unit.widths[-1])[group.name]:
        return f"down to the least; scores up to {ordered[group.size - kept - 1]:.3g} went"
    if kept == group.size:
        step = group.size - unit.counts(unit.widths[0])[group.name]
        return f"its first {step} would lose {sum(ordered[:step]):.3g}"
    return (
        f"scores up to {ordered[group.size - kept - 1]:.3g} went, "
        f"from {ordered[group.size - kept]:.3g} stay"
    )


def _why_not_asked(group: Group) -> str:
    if group.size == 1:
        return "one channel"
    kind = KINDS[group.role]
    if not kind.by_default:
        return f"role {group.role}: left alone" + (f" unless {kind.option}" if kind.option else "")
    return "protected, or linked with what is"
