"""Say in words why a group keeps what it keeps."""

from __future__ import annotations

from compressor.choose.choosing import Choice
from compressor.choose.refusals import DEFAULT_ROLES
from compressor.choose.scopes import Scores
from compressor.records import Group


def reason_of(group: Group, choice: Choice, scores: Scores) -> str:
    """Return one line on why a group of the network keeps what it keeps."""
    kept = len(choice.keep.get(group.name, range(group.size)))
    if group.name in choice.fixed:
        return "as --layer-ratio says"
    widths = choice.widths.get(group.name)
    if widths is None:
        return _why_not_asked(group)
    if not widths:
        return "too narrow for a step"
    found = scores[group.name]
    ordered = sorted(float(score) for score in found)
    if kept <= widths[-1]:
        return f"down to the least; scores up to {ordered[group.size - kept - 1]:.3g} went"
    if kept == group.size:
        step = group.size - widths[0]
        return f"its first {step} would lose {sum(ordered[:step]):.3g}"
    return (
        f"scores up to {ordered[group.size - kept - 1]:.3g} went, "
        f"from {ordered[group.size - kept]:.3g} stay"
    )


def _why_not_asked(group: Group) -> str:
    if group.size == 1:
        return "one channel"
    if group.role not in DEFAULT_ROLES:
        option = " unless --prune stream" if group.role == "stream" else ""
        return f"role {group.role}: left alone{option}"
    return "protected, or linked with what is"
