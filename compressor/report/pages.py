"""Write the pages of a report, report.md and report.html, from its dictionary alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compressor.report.charts import charts, distributions
from compressor.report.headline import headline
from compressor.report.numbers import finite
from compressor.report.tables import rows
from compressor.report.templating import fill

_REASONS_ON_THE_PAGE, _PLACES_PER_REASON = 20, 3


def to_markdown(report: Mapping[str, Any]) -> str:
    """Return the text of report.md."""
    report = finite(report)
    pruned = [group for group in report["groups"] if group["kept"] < group["size"]]
    return fill(
        "report.md.j2",
        escapes=False,
        report=report,
        rows=rows(report),
        pruned=pruned,
        whole=len(report["groups"]) - len(pruned),
        protected=report["protected"][:_REASONS_ON_THE_PAGE],
        more_reasons=max(0, len(report["protected"]) - _REASONS_ON_THE_PAGE),
        places=_PLACES_PER_REASON,
    )


def to_html(report: Mapping[str, Any]) -> str:
    """Return the text of report.html: one file that needs no other, and no network."""
    known = finite(report)
    return fill(
        "report.html.j2",
        report=known,
        headline=headline(known),
        rows=rows(known),
        latencies=list(zip(known["before"]["latency"], known["after"]["latency"], strict=False)),
        charts=charts(known),
        distributions=distributions(known),
    )
