"""What a network costs: multiply-adds and parameters by counting, latency by the clock."""

from compressor.measure.counting import count_macs, count_params, macs_by_layer
from compressor.measure.latency import measure_latency

__all__ = ["count_macs", "count_params", "macs_by_layer", "measure_latency"]
