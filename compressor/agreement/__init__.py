"""Compare what two forms of a network (module, program, file) compute, and draw inputs for that."""

from compressor.agreement.differences import Cases, Difference, difference, is_loud
from compressor.agreement.liveness import LIVE, answer, is_live
from compressor.agreement.other_inputs import fresh_inputs, map_inputs, other_inputs
from compressor.agreement.rounding import shake
from compressor.agreement.thinning import thin
from compressor.agreement.tolerances import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    INT8,
    ONNX,
    Tolerance,
    tolerance_of,
)

__all__ = [
    "BFLOAT16",
    "FLOAT16",
    "FLOAT32",
    "INT8",
    "LIVE",
    "ONNX",
    "Cases",
    "Difference",
    "Tolerance",
    "answer",
    "difference",
    "fresh_inputs",
    "is_live",
    "is_loud",
    "map_inputs",
    "other_inputs",
    "shake",
    "thin",
    "tolerance_of",
]
