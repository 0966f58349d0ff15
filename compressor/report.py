"""The numbers of a run: one dictionary for machines, a page and a table for people.

`report.json` has schema 1. MACs are multiply-adds for a batch of one, FLOPs are 2 x MACs; metrics
are shares between 0 and 1 where they are accuracies.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.table import Table
from rich.text import Text

from compressor.records import Group, Latency, Protection

SCHEMA = 1
_STATES = ("before", "sliced", "after")
_PACKAGES = ("compressor", "torch", "torchvision", "timm", "onnx", "onnxscript", "onnxruntime")
_REASONS_ON_THE_PAGE, _PLACES_PER_REASON = 20, 3


@dataclass(frozen=True)
class State:
    """The network at one moment; `params` counts tied tensors once."""

    params: int
    macs: int
    size_bytes: int
    latency: tuple[Latency, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "flops": 2 * self.macs}


def versions() -> dict[str, str]:
    """Versions of what has an influence on the numbers."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def group_entries(
    groups: Iterable[Group], keep: Mapping[str, Sequence[int]]
) -> list[dict[str, Any]]:
    """One entry per group: name, role, size and how many channels are kept."""
    return [
        {
            "name": group.name,
            "role": group.role,
            "size": group.size,
            "kept": len(keep.get(group.name, range(group.size))),
        }
        for group in groups
    ]


def protection_entries(protections: Iterable[Protection]) -> list[dict[str, Any]]:
    """One entry per reason, with every place and every tensor's dimension it reaches."""
    by_reason: dict[str, list[Protection]] = {}
    for protection in protections:
        by_reason.setdefault(protection.reason, []).append(protection)
    return [
        {
            "reason": reason,
            "places": list(dict.fromkeys(p.place for p in those if p.place)),
            "tensors": sorted({tensor for p in those for tensor in p.tensors}),
        }
        for reason, those in by_reason.items()
    ]


def to_json(report: Mapping[str, Any]) -> str:
    """The text of report.json."""
    return json.dumps(_finite(report), indent=1, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """JSON knows no NaN and no infinity: they become null."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Row:
    """One line of the before/after table, as text."""

    label: str
    before: str
    sliced: str
    after: str
    change: str


def rows(report: Mapping[str, Any]) -> list[Row]:
    """The before/after table; states that the report lacks (a dry run's) are left out."""
    states = [report[name] for name in _STATES]
    table = [
        _row("MACs", [state["macs"] for state in states], _large, _share),
        _row("parameters", [state["params"] for state in states], _large, _share),
    ]
    if all(state["size_bytes"] for state in states):
        table.append(_row("ONNX file", [state["size_bytes"] for state in states], _bytes, _share))
    for index, latency in enumerate(states[0]["latency"]):
        label = f"{latency['runtime']}, {_way(latency)}"
        medians = [state["latency"][index]["p50_ms"] for state in states]
        table.append(_row(label, medians, "{:.3g} ms".format, _share))
    for name in states[0]["metrics"]:
        values = [state["metrics"][name] for state in states]
        accuracy = name == "top1"
        table.append(
            _row(name, values, "{:.2%}".format, _points)
            if accuracy
            else _row(name, values, "{:.4g}".format, _plain_difference)
        )
    return table


def _row(label: str, values: Sequence[float], show: Any, compare: Any) -> Row:
    before, sliced, after = (show(value) for value in values)
    return Row(label, before, sliced, after, compare(values[0], values[-1]))


def _share(before: float, after: float) -> str:
    return f"{after / before - 1:+.1%}" if before else ""


def _points(before: float, after: float) -> str:
    return f"{100 * (after - before):+.2f} points"


def _plain_difference(before: float, after: float) -> str:
    return f"{after - before:+.4g}"


def _way(latency: Mapping[str, Any]) -> str:
    """Threads, and what is not usual: the device, the number of samples."""
    threads = latency["threads"]
    words = ["1 thread" if threads == 1 else f"{threads} threads"]
    words += [latency["device"]] if latency["device"] != "cpu" else []
    words += [f"batch {latency['batch']}"] if latency["batch"] != 1 else []
    return ", ".join(words)


def _large(number: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= limit:
            return f"{number / limit:.2f} {unit}" if unit != "k" else f"{number / 1e3:.1f} k"
    return f"{number:.0f}"


def _bytes(number: float) -> str:
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= limit:
            return f"{number / limit:.2f} {unit}"
    return f"{number:.0f} B"


def table(report: Mapping[str, Any]) -> Table:
    """The before/after table for the terminal."""
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
    """A dry run's tables: what would be kept of each group and why, and the predicted numbers.

    Args:
        entries: As `group_entries`, with "saves" (share of the unit's total) and "reason".
        unit: What the budget is of.
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
        show = "{:.3g} ms".format if name == "latency" else _large
        numbers.add_row(name, show(before), show(after), _share(before, after))
    return [plan, numbers]


def to_markdown(report: Mapping[str, Any]) -> str:
    """The text of report.md."""
    environment = Environment(
        loader=PackageLoader("compressor"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        autoescape=False,  # Markdown for a file, no page of a server
        keep_trailing_newline=True,
    )
    environment.filters.update(large=_large, cell=_cell)
    pruned = [group for group in report["groups"] if group["kept"] < group["size"]]
    return environment.get_template("report.md.j2").render(
        report=report,
        rows=rows(report),
        pruned=pruned,
        whole=len(report["groups"]) - len(pruned),
        protected=report["protected"][:_REASONS_ON_THE_PAGE],
        more_reasons=max(0, len(report["protected"]) - _REASONS_ON_THE_PAGE),
        places=_PLACES_PER_REASON,
    )


def _cell(text: Any) -> str:
    """Text that cannot break out of a cell of a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|")
