"""`compress compare`: several results in one table, and in one picture."""

from compressor.comparison.results import (
    Entry,
    notes,
    read_result,
    table,
)

__all__ = ["Entry", "notes", "read_result", "table"]
