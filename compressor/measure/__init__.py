"""Measure what a network costs: multiply-adds and parameters by counting, latency by the clock."""

from compressor.measure.counting import count_macs, count_params, macs_by_layer
from compressor.measure.latency import (
    Timed,
    measure_calls,
    measure_eager,
    measure_latency,
    measure_turns,
)
from compressor.measure.operators import Operator, operators_of, profiled
from compressor.measure.statistics import (
    Ratio,
    Rounds,
    Speedup,
    ratio_of,
    speedup_of,
    summary_of,
)

__all__ = [
    "Operator",
    "Ratio",
    "Rounds",
    "Speedup",
    "Timed",
    "count_macs",
    "count_params",
    "macs_by_layer",
    "measure_calls",
    "measure_eager",
    "measure_latency",
    "measure_turns",
    "operators_of",
    "profiled",
    "ratio_of",
    "speedup_of",
    "summary_of",
]
