"""Run `compress sensitivity`: measure what is lost when one group or block alone is cut."""

from compressor.studies.sensitivity.losses_tables import tables
from compressor.studies.sensitivity.probing import measure, write

__all__ = ["measure", "tables", "write"]
