"""Run `compress sensitivity`: measure what is lost when one group alone is cut."""

from compressor.studies.sensitivity.probing import measure, table, write

__all__ = ["measure", "table", "write"]
