"""Gather a sweep's numbers: a row per trial, and curves of means over seeds."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean, stdev
from typing import Any

from compressor.choose.budget import share_of
from compressor.studies.sweep.carrying_out import Outcome, Task
from compressor.studies.sweep.trials import DENSE, NOT_SMALLER, STRUCTURED, UNSTRUCTURED, Trial

COSTS = ("compression_ratio", "theoretical_speedup", "measured_speedup")
TIMES = ("latency_ms", "dense_latency_ms", "measured_speedup", "seconds")
"""Names of the columns that differ from run to run."""

ZEROS = f"if zeros are left out of the count ({NOT_SMALLER})"

Row = dict[str, Any]


@dataclass(frozen=True)
class Done:
    """A trial with what came of it, and its time if it was measured."""

    task: Task
    outcome: Outcome
    latency: Mapping[str, Any]


def rows_of(done: Sequence[Done], model: str) -> list[Row]:
    """Return one row per trial; costs and differences are relative to the dense original's."""
    dense = next(one.outcome.record for one in done if one.task.trial.kind == DENSE)
    return [_row(one, dense, model) for one in done]


def _row(one: Done, dense: Mapping[str, Any], model: str) -> Row:
    trial, options, record = one.task.trial, one.task.trial.options, one.outcome.record
    is_cut = trial.kind != DENSE
    row: Row = {
        "kind": trial.kind,
        "method": trial.method,
        "control": trial.is_control or trial.kind == DENSE,
        "note": NOT_SMALLER if trial.kind == UNSTRUCTURED else "",
        "criterion": options.criterion if trial.kind == STRUCTURED else "",
        "scope": options.scope if trial.kind == STRUCTURED else "",
        "schedule": trial.schedule,
        "recovery": trial.recovery,
        "ratio": share_of(options) if is_cut else 0.0,
        "of": options.of,
        "seed": options.seed,
        "failure": one.outcome.failure,
        "params": record.get("params"),
        "macs": record.get("macs"),
        "compression_ratio": _times(dense, record, "params"),
        "theoretical_speedup": _times(dense, record, "macs"),
        **{name: one.latency.get(name) for name in TIMES[:3]},
    }
    for name, value in dense["metrics"].items():
        own = record.get("metrics", {}).get(name)
        row |= {name: own, f"dense_{name}": value}
        row[f"{name}_difference"] = None if own is None else own - value
    return {
        **row,
        "seconds": record.get("seconds"),
        "trial": one.task.key,
        "command": _command(trial, model),
    }


def _times(dense: Mapping[str, Any], record: Mapping[str, Any], name: str) -> float | None:
    return dense[name] / record[name] if record.get(name) else None


def _command(trial: Trial, model: str) -> str:
    """Return the command that makes a structured trial's network again, else ""."""
    if trial.kind != STRUCTURED:
        return ""
    return shlex.join(["compress", model, *trial.options.spelled()])


def to_csv(rows: Sequence[Row]) -> str:
    """Return the text of results.csv."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@dataclass(frozen=True)
class Spread:
    """A mean and sample standard deviation over seeds; None as deviation of a single seed."""

    mean: float
    deviation: float | None


@dataclass(frozen=True)
class MethodPoint:
    """One ratio of one method.

    Attributes:
        ratio: Share that was to be removed.
        asked: Number of seeds that were asked for.
        seeds: Number of seeds that succeeded.
        numbers: Each number over the seeds.
    """

    ratio: float
    asked: int
    seeds: int
    numbers: Mapping[str, Spread]


@dataclass(frozen=True)
class MethodCurve:
    """One method within a setting (schedule and recovery), ratio by ratio."""

    method: str
    kind: str
    control: bool
    criterion: str
    scope: str
    schedule: str
    recovery: str
    points: tuple[MethodPoint, ...]

    @property
    def setting(self) -> str:
        return f"{self.schedule}, {self.recovery}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


_CURVE = ("method", "kind", "control", "criterion", "scope", "schedule", "recovery")


def curves_of(rows: Iterable[Row], metrics: Sequence[str]) -> list[MethodCurve]:
    """Build the curves of all methods; the dense original, which stands beside each, has none."""
    numbers = [*COSTS, "latency_ms", "params", "macs", *metrics]
    numbers += [f"{name}_difference" for name in metrics]
    by_curve: dict[tuple[Any, ...], dict[float, list[Row]]] = {}
    for row in rows:
        if row["kind"] != DENSE:
            key = tuple(row[name] for name in _CURVE)
            by_curve.setdefault(key, {}).setdefault(row["ratio"], []).append(row)
    return [
        MethodCurve(
            **dict(zip(_CURVE, key, strict=True)),
            points=tuple(_point(ratio, some, numbers) for ratio, some in sorted(by_ratio.items())),
        )
        for key, by_ratio in by_curve.items()
    ]


def _point(ratio: float, rows: Sequence[Row], names: Sequence[str]) -> MethodPoint:
    succeeded = [row for row in rows if not row["failure"]]
    known = {name: [row[name] for row in succeeded if row[name] is not None] for name in names}
    numbers = {name: _spread(values) for name, values in known.items() if values}
    return MethodPoint(ratio, len(rows), len(succeeded), numbers)


def _spread(values: Sequence[float]) -> Spread:
    return Spread(mean(values), stdev(values) if len(values) > 1 else None)
