"""Read what the reports of results say, and show them beside one another in a table."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from compressor.errors import CompressorError
from compressor.files.folder import REPORT
from compressor.files.format_table import FORMATS, ONNX
from compressor.files.integrity import check_files
from compressor.loading.given import open_result
from compressor.metrics import FIDELITY, SHARES
from compressor.report.formatting import difference, in_bytes, large, own_ms, points, share, way
from compressor.report.numbers import SCHEMA
from compressor.report.tables import cosine_of

MACS, PARAMS, FILE = "MACs", "parameters", FORMATS[ONNX].label


@dataclass(frozen=True)
class Quantity:
    """A column of the table: how its numbers are shown and compared, and whether more is better.

    Attributes:
        show: Turns a number into text.
        change: Turns the original's number and the result's into a text of the change.
        more_is_better: Whether the largest number of the column is the best.
        may_be_zero: Whether zero is a number like others; else nothing was measured.
    """

    show: Callable[[float], str]
    change: Callable[[float, float], str]
    more_is_better: bool = False
    may_be_zero: bool = False


_SIZES = {MACS: ("macs", large), PARAMS: ("params", large), FILE: ("size_bytes", in_bytes)}
_TIME = Quantity("{:.3g} ms".format, share)
_ACCURACY = Quantity("{:.2%}".format, points, more_is_better=True, may_be_zero=True)
_OTHER_METRIC = Quantity("{:.4g}".format, difference, more_is_better=True, may_be_zero=True)
_LOWER_METRIC = replace(_OTHER_METRIC, more_is_better=False)


@dataclass(frozen=True)
class Entry:
    """One result, as a row of the table shows it.

    Attributes:
        folder: The folder that compress wrote.
        model: The model's name.
        sha256: Hash of the original's weights, where it is known.
        original: The original's multiply-adds of one sample, and its parameters.
        evaluated_on: The data of the metric, in words.
        pairs: Per column the original's number and the result's, where both are known.
        quantities: Per column how its numbers are shown.
        latency: The first column of times, if there is one.
        metric: The first column of metrics, if there is one.
    """

    folder: str
    model: str
    sha256: str | None
    original: tuple[int, int]
    evaluated_on: str
    pairs: Mapping[str, tuple[float, float]]
    quantities: Mapping[str, Quantity]
    latency: str | None
    metric: str | None


def read_result(folder: Path) -> Entry:
    """Read a result from its folder's report.json.

    Raises:
        UsageError: This is no folder that compress has written.
        CompressorError: There is no report, it is cut off, of another version or something else.
    """
    path = open_result(str(folder), "compare").path / REPORT
    check_files(folder, FORMATS[ONNX].files)
    try:
        return _entry(str(folder), json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        problem = f"there is no report to read: {error.strerror}"
    except json.JSONDecodeError as error:
        problem = f"this is no whole report.json, but cut off or something else: {error}"
    except KeyError as error:
        problem = f"this is no report.json: it lacks {error}"
    except (ValueError, TypeError, AttributeError, IndexError, RecursionError) as error:
        problem = f"this is no report.json that can be used: {error}"
    raise CompressorError(
        problem,
        where=str(path),
        consequence="nothing was compared",
        next_step="give folders that compress has written",
    )


def _entry(folder: str, report: Any) -> Entry:
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise ValueError(f"it is not of schema {SCHEMA}")
    before, after = report["before"], report["after"]
    rows: dict[str, tuple[Any, Any, Quantity]] = {
        name: (before[key], after[key], Quantity(show, share))
        for name, (key, show) in _SIZES.items()
    }
    times = {
        f"{was['runtime']}, {way(was)}": (own_ms(was), own_ms(now), _TIME)
        for was, now in zip(before["latency"], after["latency"], strict=True)
    }
    metrics = {
        name: (value, after["metrics"][name], _quantity_of(name, report))
        for name, value in before["metrics"].items()
    }
    if FIDELITY not in metrics and (cosine := cosine_of(report)) is not None:
        metrics[FIDELITY] = (1.0, cosine, _OTHER_METRIC)
    rows |= {**times, **metrics}
    known = {name: cells for name, cells in rows.items() if _is_known(cells)}
    return Entry(
        folder=folder,
        model=str(report["model"]["name"]),
        sha256=report["model"]["sha256"],
        original=(int(before["macs"]), int(before["params"])),
        evaluated_on=str(report["evaluated_on"]),
        pairs={name: (float(was), float(now)) for name, (was, now, _) in known.items()},
        quantities={name: quantity for name, (_, _, quantity) in known.items()},
        latency=next((name for name in times if name in known), None),
        metric=next((name for name in metrics if name in known), None),
    )


def _quantity_of(metric: str, report: Mapping[str, Any]) -> Quantity:
    if metric in SHARES:
        return _ACCURACY
    return _LOWER_METRIC if metric in report.get("lower_is_better", ()) else _OTHER_METRIC


def _is_known(cells: tuple[Any, Any, Quantity]) -> bool:
    """Return whether both numbers of a pair can be shown.

    A number that was not finite is null in the report, and a file that was not written weighs
    nothing.
    """
    was, now, quantity = cells
    if was is None or now is None:
        return False
    if not (math.isfinite(was) and math.isfinite(now)):
        return False
    return quantity.may_be_zero or now > 0


def notes(entries: Sequence[Entry]) -> list[str]:
    """Return what a reader of the table must know: other originals, other data, missing metrics."""
    lines = []
    if len({(e.model, e.sha256, e.original) for e in entries}) > 1:
        lines.append("these are of different originals; each change is from its own")
    measured = {e.evaluated_on for e in entries if e.metric is not None}
    if len(measured) > 1:
        lines.append(f"metrics are on different data: {'; '.join(sorted(measured))}")
    unmeasured = [e.folder for e in entries if e.metric is None]
    if unmeasured:
        lines.append(f"no metric was measured: {', '.join(unmeasured)}")
    return lines


def table(entries: Sequence[Entry]) -> Table:
    """Make the table: a row per result, with the change from its original below each number.

    The best number of each column is bold.
    """
    columns = {name: quantity for entry in entries for name, quantity in entry.quantities.items()}
    shown = Table(title="results", title_justify="left", show_lines=True)
    shown.add_column("", overflow="fold")
    for name in columns:
        shown.add_column(Text(name), justify="right")
    best = {name: _best(entries, name, quantity) for name, quantity in columns.items()}
    for entry in entries:
        cells = (_cell(entry, name, quantity, best[name]) for name, quantity in columns.items())
        shown.add_row(Text(entry.folder), *cells)
    return shown


def _best(entries: Sequence[Entry], name: str, quantity: Quantity) -> float:
    values = [entry.pairs[name][1] for entry in entries if name in entry.pairs]
    return max(values) if quantity.more_is_better else min(values)


def _cell(entry: Entry, name: str, quantity: Quantity, best: float) -> Text:
    if name not in entry.pairs:
        return Text("–")
    was, now = entry.pairs[name]
    cell = Text(quantity.show(now), style="bold" if now == best else "")
    return cell.append(f"\n{quantity.change(was, now)}", style="not bold")
