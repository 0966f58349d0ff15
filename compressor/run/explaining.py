"""Explain why each group keeps what it keeps, and what that saves."""

from __future__ import annotations

from typing import Any

from compressor.choose import UNITS, ByPlan, reason_of
from compressor.records import Group
from compressor.report import group_entries
from compressor.run.decide import Decision
from compressor.run.opened import Run


def explain(run: Run, decision: Decision) -> list[dict[str, Any]]:
    """Return one entry per group for the report.

    An entry has the group's name, role, size and kept channels, why, and `saves`: the share of the
    network's cost that would come back if this group alone kept all its channels.
    """
    unit, kept = run.unit, decision.kept
    whole, now = run.before.total(unit), run.total(unit, kept)
    entries = []
    for group, entry in zip(
        run.network.groups, group_entries(run.network.groups, decision.keep), strict=True
    ):
        without = {name: count for name, count in kept.items() if name != group.name}
        saves = (run.total(unit, without) - now) / whole if group.name in kept else 0.0
        reason = _reason(group, run, decision)
        entries.append({**entry, "saves": saves, "reason": reason})
    return entries


def _reason(group: Group, run: Run, decision: Decision) -> str:
    if isinstance(decision.goal, ByPlan):
        return "as the plan says"
    return reason_of(group, decision.choice, run.scores) if decision.choice else ""


def shadow_price(run: Run, decision: Decision) -> str:
    """Say in words what the last per cent of the cost took in score; "" where no score decided."""
    last = decision.choice.last if decision.choice is not None else None
    if last is None or last.saved <= 0:
        return ""
    return (
        f"shadow price: the last 1 % of the {UNITS[run.unit]} cost {last.price:.3g} of "
        f"{run.options.criterion} score; {last.unit} went last"
    )
