"""Format the numbers of a run: one dictionary for machines, tables for people.

`report.json` has schema 1. MACs are multiply-adds for a batch of one, FLOPs are 2 x MACs; metrics
are shares between 0 and 1 where they are accuracies.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from rich.table import Table
from rich.text import Text

from compressor.records import Group, Latency, Protection, to_number

SCHEMA = 1
_STATES = ("before", "sliced", "after")
_PACKAGES = ("compressor", "torch", "torchvision", "timm", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class State:
    """The network at one moment of a run.

    Attributes:
        params: Number of elements in the parameters; tied tensors count once.
        macs: Multiply-adds of one sample.
        size_bytes: Size of the ONNX file, 0 without one.
        latency: Measured times, one for each way of running it.
        metrics: Metrics by name.
    """

    params: int
    macs: int
    size_bytes: int
    latency: tuple[Latency, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "flops": 2 * self.macs}


def versions() -> dict[str, str]:
    """Return the versions of everything that influences the numbers."""
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
    """Return one entry per group: name, role, size and how many channels are kept."""
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
    """Return one entry per reason, with every place and tensor dimension that it reaches."""
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


def layer_entries(before: Mapping[str, int], after: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return one entry per layer: name, and its MACs before and after.

    Some layers are one place in the smaller network alone, such as a module that runs its traced
    operators; these are one entry for both.
    """
    whole = after.keys() - before.keys()
    entries: dict[str, dict[str, Any]] = {}
    for moment, layers in (("before", before), ("after", after)):
        for name, macs in layers.items():
            place = next((above for above in _upwards(name) if above in whole), name)
            entry = entries.setdefault(place, {"name": place, "before": 0, "after": 0})
            entry[moment] += macs
    return list(entries.values())


class TimedOperator(Protocol):
    """An operator of an ONNX file: the module that it belongs to, and its milliseconds."""

    @property
    def layer(self) -> str: ...

    @property
    def ms(self) -> float: ...


def time_layers(
    entries: Sequence[Mapping[str, Any]],
    before: Iterable[TimedOperator],
    after: Iterable[TimedOperator],
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Add milliseconds to layers' entries; operators count for the innermost layer around.

    Args:
        entries: What `layer_entries` returns; they are not changed.
        before, after: The operators of both networks' files.

    Returns:
        The entries with each layer's milliseconds before and after, and the milliseconds of all
        other operators together.
    """
    names = {entry["name"] for entry in entries} - {""}
    times: dict[str, dict[str, float]] = {name: {"before": 0.0, "after": 0.0} for name in names}
    other = {"before": 0.0, "after": 0.0}
    for moment, operators in (("before", before), ("after", after)):
        for operator in operators:
            place = next((above for above in _upwards(operator.layer) if above in names), None)
            (times[place] if place is not None else other)[moment] += operator.ms
    timed = [
        {**entry, **{f"{moment}_ms": ms for moment, ms in times[entry["name"]].items()}}
        if entry["name"] in times
        else dict(entry)
        for entry in entries
    ]
    return timed, other


def _upwards(name: str) -> Iterator[str]:
    """Yield the path of a module, of its parent, and so on up to the network's, which is ""."""
    while name:
        yield name
        name = name.rpartition(".")[0]
    yield name


def to_json(report: Mapping[str, Any]) -> str:
    """Return the text of report.json."""
    return json.dumps(finite(report), indent=1, allow_nan=False, default=to_number) + "\n"


def finite(value: Any) -> Any:
    """Replace NaN and infinities in nested data by None, since JSON has neither."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
        table.append(_row("ONNX file", [state["size_bytes"] for state in states], in_bytes, share))
    for index, latency in enumerate(states[0]["latency"]):
        medians = [own_ms(state["latency"][index]) for state in states]
        row = _row(describe_timing(latency), medians, "{:.3g} ms".format, share)
        spread = "".join(map(interval, report.get("speedups", [])[index : index + 1]))
        table.append(replace(row, change=f"{row.change}{spread}"))
    for name in states[0]["metrics"]:
        values = [state["metrics"][name] for state in states]
        accuracy = name == "top1"
        table.append(
            _row(name, values, "{:.2%}".format, points)
            if accuracy
            else _row(name, values, "{:.4g}".format, difference)
        )
    return table


def _row(label: str, values: Sequence[float | None], show: Any, compare: Any) -> Row:
    before, sliced, after = ("–" if not _is_known(value) else show(value) for value in values)
    ends = (values[0], values[-1])
    return Row(label, before, sliced, after, compare(*ends) if all(map(_is_known, ends)) else "")


def _is_known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def share(before: float, after: float) -> str:
    """Format a change as a share of the value before."""
    return f"{after / before - 1:+.1%}" if before else ""


def points(before: float, after: float) -> str:
    """Format the change of a share between 0 and 1, in hundredths."""
    return f"{100 * (after - before):+.2f} points"


def difference(before: float, after: float) -> str:
    """Format the change of any other metric."""
    return f"{after - before:+.4g}"


def own_ms(latency: Mapping[str, Any]) -> float:
    """Return the milliseconds that a call takes by itself.

    That is the processor's time where it is known, else the median by the wall clock.
    """
    found: float = latency["p50_ms"] if latency.get("cpu_ms") is None else latency["cpu_ms"]
    return found


def describe_timing(latency: Mapping[str, Any]) -> str:
    """Return in words the runtime, the way, and which time was taken."""
    known = latency.get("cpu_ms") is not None
    return f"{latency['runtime']}, {way(latency)}{', CPU time' if known else ''}"


def interval(speedup: Mapping[str, Any]) -> str:
    """Format the interval of a change with 95 % confidence, and whether the times are noisy."""
    low, high = speedup["low"], speedup["high"]
    noisy = ", noisy" if speedup.get("is_noisy") else ""
    if not (low and high) or low == high:
        return noisy
    return f" ({1 / high - 1:+.0%} to {1 / low - 1:+.0%}){noisy}"


def noisy_words(latency: Mapping[str, Any], speedup: Mapping[str, Any]) -> str:
    """Return a note that something else kept the machine busy while this way was timed."""
    return (
        f"noisy times ({describe_timing(latency)}): {speedup['low']:.2f} to "
        f"{speedup['high']:.2f} times faster, and the original "
        f"{speedup['noise']['value']:.2f} times as fast as itself; "
        "compress bench times again, on a quiet machine"
    )


def way(latency: Mapping[str, Any]) -> str:
    """Return in words the threads, and the device and number of samples where they are unusual."""
    threads = latency["threads"]
    words = ["1 thread" if threads == 1 else f"{threads} threads"]
    words += [latency["device"]] if latency["device"] != "cpu" else []
    words += [f"batch {latency['batch']}"] if latency["batch"] != 1 else []
    return ", ".join(words)


def large(number: float) -> str:
    """Format a count in thousands, millions or billions."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= limit:
            return f"{number / limit:.2f} {unit}" if unit != "k" else f"{number / 1e3:.1f} k"
    return f"{number:.0f}"


def in_bytes(number: float) -> str:
    """Format a size that is given in bytes."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= limit:
            return f"{number / limit:.2f} {unit}"
    return f"{number:.0f} B"


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
