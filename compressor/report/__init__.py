"""Report a run: numbers for machines, pages and tables for people."""

from compressor.report.formatting import machine_words, noisy_words, own_ms
from compressor.report.numbers import (
    SCHEMA,
    State,
    group_entries,
    layer_entries,
    protection_entries,
    time_layers,
    to_json,
    versions,
)
from compressor.report.pages import to_html, to_markdown
from compressor.report.schema import report_schema
from compressor.report.tables import plan_tables, rows, table

__all__ = [
    "SCHEMA",
    "State",
    "group_entries",
    "layer_entries",
    "machine_words",
    "noisy_words",
    "own_ms",
    "plan_tables",
    "protection_entries",
    "report_schema",
    "rows",
    "table",
    "time_layers",
    "to_html",
    "to_json",
    "to_markdown",
    "versions",
]
