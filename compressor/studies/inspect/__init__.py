"""Show groups and protections as a table and as a picture, beside torch-pruning's."""

from compressor.studies.inspect.inspecting import (
    Inspection,
    describe,
    inspect,
    macs_share,
    opinion_table,
    tables,
)

__all__ = ["Inspection", "describe", "inspect", "macs_share", "opinion_table", "tables"]
