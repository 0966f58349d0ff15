"""Whether two forms of a network compute the same: one comparison for modules, programs and files,
and inputs on which they are compared."""

from compressor.agreement.tolerances import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    INT8,
    Tolerance,
    tolerance_of,
)

__all__ = ["BFLOAT16", "FLOAT16", "FLOAT32", "INT8", "Tolerance", "tolerance_of"]
