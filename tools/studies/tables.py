"""The one table of a study: a row per network, method and budget, its seeds side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import mean, stdev
from typing import Any

from compressor.files.format_table import titles_of_backends
from tools.markdown import table
from tools.studies.methods import Row
from tools.studies.networks import IN_NATS
from tools.studies.studies import Study
from tools.studies.trial import CLOCK, GENERATION, RIVAL, Record, Trial

Records = Mapping[str, Record]
"""By the trial's key."""


class Entry:
    """The records of one row, which differ by their seeds."""

    def __init__(self, row: Row, records: Sequence[Record], clock: Record | None) -> None:
        self.label, self.trial = row.label, row.trial
        self.records, self.clock = records, clock

    @property
    def sizes(self) -> list[tuple[float, float]]:
        """Return by how many times MACs and parameters are fewer."""
        return [
            (r["macs"][0] / r["macs"][1], r["params"][0] / r["params"][1]) for r in self.records
        ]

    @property
    def share(self) -> float | None:
        """Return the measured share of the original's time; None where none was measured."""
        shares = [r["measured"]["share"] for r in self.records if "measured" in r]
        return mean(shares) if shares else None

    @property
    def quality(self) -> Mapping[str, list[float]]:
        """Return what the smaller networks are worth to their users, by the measure's name."""
        first = self.records[0].get("quality", {})
        return {name: [r["quality"][name][1] for r in self.records] for name in first}

    def values(self, moment: str) -> list[float]:
        """Return the metric at a moment: original, sliced, repaired, trained, or last."""
        found = [self._places(r["moments"]).get(moment) for r in self.records]
        scale = 1 if self.trial.network in IN_NATS else 100
        return [scale * value for value in found if value is not None]

    def _places(self, moments: Sequence[tuple[str, float]]) -> dict[str, float]:
        values = [value for _, value in moments]
        if not values or values[0] is None:
            return {}
        options = self.trial.options
        found = {"original": values[0], "sliced": values[1], "last": values[-1]}
        is_theirs = self.trial.tool == RIVAL
        is_repaired = options.get("batch_norm") if is_theirs else options.get("repair", True)
        if is_repaired and len(values) > 2:
            found["repaired"] = values[2]
        if options.get("epochs"):
            found["trained"] = values[-1]
        return found


def spread(values: Sequence[float]) -> str:
    """Return mean and standard deviation as text, "" of nothing."""
    if not values:
        return ""
    deviation = stdev(values) if len(set(values)) > 1 else 0.0
    return f"{mean(values):.2f} ± {deviation:.2f}" if deviation else f"{mean(values):.2f}"


def _times(entry: Entry) -> str:
    """Return shares of the original's time, by the number of samples of a call."""
    if entry.share is not None:
        return f"{entry.share:.2f}"
    ways = entry.clock["times"] if entry.clock else ()
    return " / ".join(f"{w['share'][entry.label]:.2f}" for w in ways if entry.label in w["share"])


def _worth(measure: str, entry: Entry) -> str:
    """Return a measure of its users, in per cent of the whole."""
    return spread([100 * value for value in entry.quality.get(measure, ())])


def _lost(entry: Entry) -> str:
    pairs = zip(entry.values("last"), entry.values("original"), strict=True)
    found = [last - original for last, original in pairs]
    return f"{mean(found):+.2f}" if found else ""


COLUMNS: Mapping[str, Callable[[Entry], str]] = {
    "network": lambda e: e.trial.network,
    "method": lambda e: e.label,
    "fewer MACs": lambda e: f"{mean(macs for macs, _ in e.sizes):.2f}×",
    "fewer parameters": lambda e: f"{mean(params for _, params in e.sizes):.2f}×",
    "seeds": lambda e: str(len(e.records)),
    "before": lambda e: spread(e.values("original")),
    "sliced": lambda e: spread(e.values("sliced")),
    "repaired": lambda e: spread(e.values("repaired")),
    "trained": lambda e: spread(e.values("trained")),
    "difference": _lost,
    "time": _times,
}


def entries(study: Study, records: Records) -> list[Entry]:
    """Return the rows that have records, grouped by network and budget in the study's order."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in study.rows:
        if row.trial.tool not in (CLOCK, GENERATION) and row.trial.key in records:
            groups.setdefault(_kind(row), []).append(row)
    found = [
        Entry(rows[0], [records[r.trial.key] for r in rows], _clock(rows[0], study, records))
        for rows in groups.values()
    ]
    networks = list(dict.fromkeys(entry.trial.network for entry in found))
    return sorted(found, key=lambda e: (networks.index(e.trial.network), e.trial.options["ratio"]))


def _kind(row: Row) -> tuple[Any, ...]:
    options = row.trial.options
    return row.trial.network, row.label, options["ratio"], options.get("epochs", 0)


def _clock(row: Row, study: Study, records: Records) -> Record | None:
    for other in study.rows:
        forms = other.trial.options.get("forms", {})
        is_same = other.trial.network == row.trial.network and row.label in forms
        ratio = row.trial.options["ratio"]
        if is_same and forms[row.label]["options"]["ratio"] == ratio:
            return records.get(other.trial.key)
    return None


def study_table(study: Study, records: Records) -> str:
    """Return the table as Markdown; columns that would be empty are left out, "" without rows."""
    found = entries(study, records)
    measures = dict.fromkeys(name for entry in found for name in entry.quality)
    shown = {**COLUMNS, **{name: partial(_worth, name) for name in measures}}
    columns = {head: [cell(entry) for entry in found] for head, cell in shown.items()}
    filled = {head: cells for head, cells in columns.items() if any(cells)}
    return table(list(filled), list(zip(*filled.values(), strict=True))) if found else ""


def clock_table(study: Study, records: Records) -> str:
    """Return a row per network and number of samples: how many times faster each form is.

    Networks that were timed in other forms have a table of their own.
    """
    alike: dict[tuple[str, ...], list[tuple[Trial, Record]]] = {}
    for trial, record in _found(study, CLOCK, records):
        alike.setdefault(tuple(trial.options["forms"]), []).append((trial, record))
    return "\n\n".join(_clock_table(labels, clocks) for labels, clocks in alike.items())


def _clock_table(labels: Sequence[str], clocks: Sequence[tuple[Trial, Record]]) -> str:
    rows = [
        [
            *(trial.network, *_way(trial, way), f"{way['first_ms']:.4g} ms", f"{way['noise']:.1%}"),
            *(_faster(record, way, label) for label in labels),
        ]
        for trial, record in clocks
        for way in record["times"]
    ]
    on = ["runtime", "threads"] if any("backends" in trial.options for trial, _ in clocks) else []
    return table(["network", *on, "batch", "original", "noise", *labels], rows)


def _way(trial: Trial, way: Mapping[str, Any]) -> list[str]:
    """Return the cells that say how a network was run; of many runtimes these, too."""
    if "backends" not in trial.options:
        return [str(way["batch"])]
    title = titles_of_backends()[way["backend"]]
    numbers = ", int8" if way.get("precision") == "int8" else ""
    return [title + numbers, str(way["threads"]), str(way["batch"])]


def generation_table(study: Study, records: Records) -> str:
    """Return a row per form of a folder: its weights in bytes, and how fast it makes tokens."""
    rows = []
    for _, record in _found(study, GENERATION, records):
        for label, size in record["bytes"].items():
            ways = record["generation"]
            speeds = [f"{way['tokens_per_second'][label]:.0f}" for way in ways]
            rows.append([label, f"{size / 1e6:.2f} MB", *speeds])
        heads = [f"tokens/s, {w['batch']} at once (noise {w['noise']:.1%})" for w in ways]
    return table(["folder", "weights", *heads], rows) if rows else ""


def _found(study: Study, tool: str, records: Records) -> list[tuple[Trial, Record]]:
    """Return the trials of a clock that were run, with their records."""
    trials = [row.trial for row in study.rows if row.trial.tool == tool]
    return [(trial, records[trial.key]) for trial in trials if trial.key in records]


def _faster(record: Record, way: Mapping[str, Any], label: str) -> str:
    if label in record["failures"]:
        return "fails"
    share = way["share"].get(label)
    return f"{1 / share:.2f}× ({record['macs_left'][label]:.3f})" if share else ""


def trials_left(study: Study, records: Records) -> int:
    """Return how many trials have no record."""
    return len({row.trial.key for row in study.rows} - records.keys())
