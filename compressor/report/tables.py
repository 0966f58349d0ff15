"""Build a report's tables for the terminal: before and after, and a dry run's plan."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.table import Table
from rich.text import Text

from compressor.files.format_table import FORMATS, ONNX
from compressor.metrics import FIDELITY, SHARES
from compressor.report.formatting import (
    describe_timing,
    difference,
    in_bytes,
    interval,
    large,
    own_ms,
    points,
    share,
)

_STATES = ("before", "sliced", "after")


@dataclass(frozen=True)
class Row:
    """One row of the before/after table, as text."""

    label: str
    before: str
    sliced: str
    after: str
    change: str


def rows(report: Mapping[str, Any]) -> list[Row]:
    """Return the before/after table's rows; numbers that the report lacks are left out."""
    states = [report[name] for name in _STATES]
    table = [
        _row("MACs", [state["macs"] for state in states], large, share),
        _row("parameters", [state["params"] for state in states], large, share),
    ]
    if all(state["size_bytes"] for state in states):
        sizes = [state["size_bytes"] for state in states]
        table.append(_row(FORMATS[ONNX].label, sizes, in_bytes, share))
    for index, latency in enumerate(states[0]["latency"]):
        medians = [own_ms(state["latency"][index]) for state in states]
        row = _row(describe_timing(latency), medians, "{:.3g} ms".format, share)
        spread = "".join(map(interval, report.get("speedups", [])[index : index + 1]))
        table.append(replace(row, change=f"{row.change}{spread}"))
    for name in states[0]["metrics"]:
        values = [state["metrics"][name] for state in states]
        is_lower = name in report.get("lower_is_better", ())
        label = f"{name} (less is better)" if is_lower else name
        is_share = name in SHARES
        show, compare = ("{:.2%}".format, points) if is_share else ("{:.4g}".format, difference)
        table.append(_row(label, values, show, compare))
    if FIDELITY not in states[0]["metrics"] and (cosine := cosine_of(report)) is not None:
        table.append(_row(FIDELITY, (1.0, None, cosine), "{:.4g}".format, difference))
    return table


def cosine_of(report: Mapping[str, Any]) -> float | None:
    """Return the mean cosine of the outputs with the original's; None where it is not known."""
    outputs = (report.get(FIDELITY) or {}).get("outputs")
    return sum(float(each["cosine"]) for each in outputs) / len(outputs) if outputs else None


def _row(label: str, values: Sequence[float | None], show: Any, compare: Any) -> Row:
    before, sliced, after = ("–" if not _is_known(value) else show(value) for value in values)
    ends = (values[0], values[-1])
    return Row(label, before, sliced, after, compare(*ends) if all(map(_is_known, ends)) else "")


def _is_known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def table(report: Mapping[str, Any]) -> Table:
    """Build the before/after table for the terminal."""
    shown = Table(title=report["model"]["name"], title_justify="left")
    with_steps = bool(report["before"]["metrics"])
    headers = ["before", *(["sliced"] if with_steps else []), "after", "change"]
    shown.add_column("")
    for header in headers:
        shown.add_column(header, justify="right")
    for row in rows(report):
        cells = [row.before, *([row.sliced] if with_steps else []), row.after]
        shown.add_row(row.label, *cells, Text(row.change, style="bold"))
    return shown


def plan_tables(
    entries: Iterable[Mapping[str, Any]],
    unit: str,
    predictions: Mapping[str, tuple[float, float]],
) -> list[Table]:
    """Build a dry run's tables: what each group would keep and why, and predicted numbers.

    Args:
        entries: As `group_entries`, with "saves" (share of the unit's total) and "reason".
        unit: The unit of the budget.
        predictions: Per unit the cost before and after; latency in milliseconds.
    """
    plan = Table(title="plan", title_justify="left")
    for header in ("group", "role"):
        plan.add_column(header, overflow="fold")
    for header in ("size", "kept", f"saves of the {unit}"):
        plan.add_column(header, justify="right")
    plan.add_column("why", overflow="fold")
    for entry in entries:
        saves = f"{entry['saves']:.1%}" if entry["kept"] < entry["size"] else ""
        cells = (entry["name"], entry["role"], str(entry["size"]), str(entry["kept"]), saves)
        plan.add_row(*map(Text, (*cells, entry["reason"])))
    numbers = Table(title="predicted", title_justify="left")
    for header in ("", "before", "after", "change"):
        numbers.add_column(header, justify="right" if header else "left")
    for name, (before, after) in predictions.items():
        show = "{:.3g} ms".format if name == "latency" else large
        numbers.add_row(name, show(before), show(after), share(before, after))
    return [plan, numbers]
