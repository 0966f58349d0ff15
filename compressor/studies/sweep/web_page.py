"""Write a sweep's report.html, one file that needs no other and no network, and its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from compressor.choose.budget import times_smaller
from compressor.report.templating import UNKNOWN, fill
from compressor.studies.sweep.curves_of_trials import COSTS, MethodCurve, MethodPoint, Spread
from compressor.studies.sweep.pictures import (
    COLOURS,
    COST_WORDS,
    METRIC_WORDS,
    Picture,
    Style,
    draw,
    for_a_page,
    settings_of,
    styles_of,
)


def pictures_of(metrics: Mapping[str, float]) -> list[Picture]:
    """List the pictures: each metric, and its difference to dense, against each cost."""
    return [
        Picture(metric, cost, is_difference, dense)
        for metric, dense in metrics.items()
        for is_difference in (False, True)
        for cost in COSTS
    ]


def to_html(results: Mapping[str, Any], curves: Sequence[MethodCurve]) -> str:
    """Return the text of the page, from the content of results.json."""
    metrics = results["dense"]["metrics"]
    styles = styles_of(curves)
    return fill(
        "sweep.html.j2",
        results=results,
        metrics=[
            (METRIC_WORDS.get(name, name), show_metric(name, v)) for name, v in metrics.items()
        ],
        settings=[
            _setting(words, those, metrics, styles) for words, those in settings_of(curves).items()
        ],
        colours=list(enumerate(COLOURS)),
        answers={True: ("yes", "fulfilled"), False: ("no", "not fulfilled"), None: ("na", "n/a")},
    )


def _setting(
    words: str,
    curves: Sequence[MethodCurve],
    metrics: Mapping[str, float],
    styles: dict[str, Style],
) -> dict[str, Any]:
    charts = [
        (
            f"{picture.words} against {COST_WORDS[picture.cost]}",
            for_a_page(draw(curves, picture, styles, legend=False)),
        )
        for picture in pictures_of(metrics)
    ]
    keys = [(curve.method, curve.control, _key(styles[curve.method])) for curve in curves]
    return {
        "words": words,
        "charts": charts,
        "keys": keys,
        "headers": [METRIC_WORDS.get(name, name) for name in metrics],
        "rows": [_cells(curve, point, list(metrics)) for curve in curves for point in curve.points],
    }


def _key(style: Style) -> str:
    number = COLOURS.index(style.colour) if style.colour in COLOURS else None
    return "var(--quiet)" if number is None else f"var(--c{number})"


def _cells(curve: MethodCurve, point: MethodPoint, metrics: Sequence[str]) -> dict[str, Any]:
    costs = [point.numbers.get(cost) for cost in COSTS]
    return {
        "method": curve.method + (" (control)" if curve.control else ""),
        "asked": f"{times_smaller(point.ratio):.4g}×",
        "seeds": str(point.seeds) if point.seeds == point.asked else f"{point.seeds}/{point.asked}",
        "costs": [UNKNOWN if cost is None else f"{cost.mean:.3g}×" for cost in costs],
        "values": [
            (spread(name, point.numbers.get(name)), spread(name, of_difference(point, name), "+"))
            for name in metrics
        ],
    }


def of_difference(point: MethodPoint, metric: str) -> Spread | None:
    return point.numbers.get(f"{metric}_difference")


def spread(metric: str, found: Spread | None, sign: str = "") -> str:
    """Format a mean ± sample standard deviation."""
    if found is None:
        return UNKNOWN
    value = show_metric(metric, found.mean, sign)
    return value if found.deviation is None else f"{value} ± {show_metric(metric, found.deviation)}"


def show_metric(metric: str, value: float, sign: str = "") -> str:
    """Format a metric; accuracies are shown in per cent."""
    if metric in METRIC_WORDS:
        return format(100 * value, f"{sign}.2f")
    return format(value, f"{sign}.4g")


def tables(curves: Sequence[MethodCurve], metrics: Mapping[str, float]) -> list[Table]:
    """Build a table per setting for the terminal, with a line per method and ratio."""
    name = next(iter(metrics))
    words = METRIC_WORDS.get(name, name)
    all_tables = []
    for setting, those in settings_of(curves).items():
        title = f"{setting} (dense original: {words} {show_metric(name, metrics[name])})"
        table = Table(title=title, title_justify="left")
        table.add_column("method", overflow="fold")
        for header in ("smaller", "fewer MACs", "faster", words, "difference"):
            table.add_column(header, justify="right")
        for curve in those:
            for point in curve.points:
                cells = _cells(curve, point, [name])
                table.add_row(*map(Text, (cells["method"], *cells["costs"], *cells["values"][0])))
            table.add_section()
        all_tables.append(table)
    return all_tables
