"""A page's part about a package's network: what it is, its rows, and a sentence from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tools.markdown import table
from tools.studies.trial import Record, Trial

Rows = Sequence[tuple[str, Trial, Record]]
"""Of one network: labels with their trials and records, in the study's order."""


def to_markdown(network: str, rows: Rows) -> str:
    """Return a heading, where the network comes from, a table, and the numbers at half in words."""
    (_, _, first), *_ = rows
    package = first["package"]
    said = (
        f"In {package['package']} {package['version']} ({package['licence']}), written by "
        f"{package['writer']}."
    )
    ordered = sorted(rows, key=lambda row: row[1].options["ratio"])
    lines = [_original(first), *(_line(label, record) for label, _, record in ordered)]
    head = ["", "MACs", "parameters", *first["quality"], "time", "faster", "noise"]
    shown = table([*head, "seconds", "memory"], lines)
    return "\n\n".join(filter(None, (f"## {network}", said, shown, _in_words(rows))))


def _original(record: Record) -> list[str]:
    sizes = [f"{record[name][0] / 1e6:.3g} M" for name in ("macs", "params")]
    return [
        "the file itself",
        *sizes,
        *(_share(q[0]) for q in record["quality"].values()),
        *[""] * 5,
    ]


def _line(label: str, record: Record) -> list[str]:
    sizes = [f"{record[name][1] / record[name][0]:.1%}" for name in ("macs", "params")]
    quality = [_share(values[1]) for values in record["quality"].values()]
    clock = record["clock"]
    times = f"{clock['before_ms']:.3g} → {clock['after_ms']:.3g} ms"
    faster = f"{clock['faster']:.2f}×"
    spent = f"{sum(record['seconds'].values()):.0f}", f"{record['peak_mb'] / 1000:.1f} GB"
    return [label, *sizes, *quality, times, faster, f"{clock['noise']:.1%}", *spent]


def _share(value: float) -> str:
    return f"{100 * value:.1f}"


def _in_words(rows: Rows) -> str:
    """Return what is kept at half of the multiply-adds, by the defaults and by size alone."""
    half = {
        label: record["quality"]
        for label, trial, record in rows
        if trial.options["ratio"] == 0.5 and "of" not in trial.options
    }
    if not half:
        return ""
    (measure, (before, _)), *_ = next(iter(half.values())).items()
    kept = [f"{_share(quality[measure][1])} by `{label}`" for label, quality in half.items()]
    words = f"At half of the multiply-adds, of {_share(before)} ({measure}) are left"
    return f"{words}: {', '.join(kept)}."


def clock_of(report: Mapping[str, Any]) -> dict[str, float]:
    """Return the calls of one thread: before and after, how many times faster, and the noise."""
    before, after = (report[when]["latency"][0]["p50_ms"] for when in ("before", "after"))
    speedup = report["speedups"][0]
    noise = abs(1 - speedup["noise"]["value"])
    return {"before_ms": before, "after_ms": after, "faster": speedup["value"], "noise": noise}
