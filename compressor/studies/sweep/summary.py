"""Sum up a sweep in rows, curves and a checklist, and write the files of its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from compressor.options import Options, SweepOptions
from compressor.report import to_json, versions
from compressor.run.opened import Opened
from compressor.studies.sweep.checklist import Found, checklist
from compressor.studies.sweep.curves_of_trials import (
    Done,
    MethodCurve,
    Row,
    curves_of,
    rows_of,
    to_csv,
)
from compressor.studies.sweep.latencies import way_of
from compressor.studies.sweep.pictures import draw, file_of, settings_of, styles_of
from compressor.studies.sweep.store import CSV, CURVES, JSON, PAGE, Store
from compressor.studies.sweep.trials import DENSE, dense_of
from compressor.studies.sweep.web_page import pictures_of, tables, to_html
from compressor.watch import Stopwatch

SCHEMA = 1


@dataclass(frozen=True)
class Sweep:
    """The results of a sweep.

    Attributes:
        rows: One per trial, as in results.csv.
        curves: Means over seeds, by method within a setting.
        results: Everything, as in results.json.
    """

    rows: list[Row]
    curves: list[MethodCurve]
    results: dict[str, Any]

    @property
    def failed(self) -> list[Row]:
        """Return the rows of trials that did not succeed, with their reason."""
        return [row for row in self.rows if row["failure"]]

    def tables(self) -> list[Table]:
        """Build a table per setting for the terminal, with a line per method and ratio."""
        return tables(self.curves, self.results["dense"]["metrics"])


def sum_up(
    done: Sequence[Done],
    opened: Opened,
    options: SweepOptions,
    command: str,
    stopwatch: Stopwatch,
) -> Sweep:
    """Sum up all trials of a sweep."""
    loaded, samples = opened.loaded, opened.samples
    model = opened.subject.model
    rows = rows_of(done, model if isinstance(model, str) else "MODEL")
    dense = next(one.outcome.record for one in done if one.task.trial.kind == DENSE)
    metrics: dict[str, float] = dense["metrics"]
    curves = curves_of(rows, list(metrics))
    base: Options = dense_of(options).options
    results: dict[str, Any] = {
        "schema": SCHEMA,
        "command": command,
        "model": {
            "name": loaded.name,
            "recognised": loaded.recognised,
            "weights": loaded.weights,
            "sha256": loaded.sha256,
        },
        "evaluated_on": samples.evaluated_on,
        "evaluated_samples": len(samples.test) if samples.test else 0,
        "options": asdict(options),
        "dense": {name: dense[name] for name in ("params", "macs", "metrics")},
        "machine": way_of(base),
        "versions": versions(),
        "notes": stopwatch.notes,
    }
    items = checklist(Found(rows, curves, list(metrics), results))
    results |= {
        "checklist": [asdict(item) for item in items],
        "curves": [curve.to_dict() for curve in curves],
        "trials": [
            {**row, "moments": one.outcome.record.get("moments", [])}
            for row, one in zip(rows, done, strict=True)
        ],
    }
    return Sweep(rows, curves, results)


def write(found: Sweep, store: Store) -> None:
    """Write the pictures, the page and the numbers, each file whole."""
    styles, metrics = styles_of(found.curves), found.results["dense"]["metrics"]
    written = set()
    for setting, curves in settings_of(found.curves).items():
        for picture in pictures_of(metrics):
            text = draw(curves, picture, styles, legend=True)
            written.add(file_of(setting, picture))
            store.write(f"{CURVES}/{file_of(setting, picture)}", text)
    store.remove_curves_but(written)
    store.write(PAGE, to_html(found.results, found.curves))
    store.write(JSON, to_json(found.results))
    store.write(CSV, to_csv(found.rows))
