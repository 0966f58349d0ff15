"""Compare several results in one table, and in one picture: `compress compare`."""

from compressor.studies.compare.result_entries import Entry, notes, read_result, table

__all__ = ["Entry", "notes", "read_result", "table"]
