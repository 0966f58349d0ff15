"""Show groups and protections as a table, as a picture, beside torch-pruning's: `compress
inspect`."""

from compressor.inspection.inspecting import (
    Inspection,
    describe,
    inspect,
    macs_share,
    opinion_table,
    tables,
)

__all__ = ["Inspection", "describe", "inspect", "macs_share", "opinion_table", "tables"]
