"""The pages of a report: report.md and report.html, from its dictionary alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from compressor.report.charts import charts, distributions
from compressor.report.headline import headline
from compressor.report.numbers import finite, large, rows, way

_REASONS_ON_THE_PAGE, _PLACES_PER_REASON = 20, 3
UNKNOWN = "–"


def to_markdown(report: Mapping[str, Any]) -> str:
    """The text of report.md."""
    report = finite(report)
    pruned = [group for group in report["groups"] if group["kept"] < group["size"]]
    return (
        _environment(escapes=False)  # Markdown for a file, no page of a server
        .get_template("report.md.j2")
        .render(
            report=report,
            rows=rows(report),
            pruned=pruned,
            whole=len(report["groups"]) - len(pruned),
            protected=report["protected"][:_REASONS_ON_THE_PAGE],
            more_reasons=max(0, len(report["protected"]) - _REASONS_ON_THE_PAGE),
            places=_PLACES_PER_REASON,
        )
    )


def to_html(report: Mapping[str, Any]) -> str:
    """The text of report.html: one file that needs no other, and no network."""
    known = finite(report)
    return (
        _environment(escapes=True)
        .get_template("report.html.j2")
        .render(
            report=known,
            headline=headline(known),
            rows=rows(known),
            latencies=list(
                zip(known["before"]["latency"], known["after"]["latency"], strict=False)
            ),
            charts=charts(known),
            distributions=distributions(known),
        )
    )


def _environment(*, escapes: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("compressor"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        autoescape=escapes,
        keep_trailing_newline=True,
    )
    environment.filters.update(large=large, cell=_cell, shown=_shown, way=way)
    return environment


def _cell(text: Any) -> str:
    """Text that cannot break out of a cell of a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def _shown(value: Any, how: str) -> str:
    return UNKNOWN if value is None else how.format(value)
