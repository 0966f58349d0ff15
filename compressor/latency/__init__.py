"""Predict latency from measured layers: what a network takes at widths that nobody has built."""

from compressor.latency.bench import Bench, Case, OnnxBench
from compressor.latency.layers import Layer, layers_of
from compressor.latency.measuring import measure_table, read_given_table
from compressor.latency.model import LatencyModel
from compressor.latency.portable import portable_layers
from compressor.latency.table import LatencyTable, read_table, write_table
from compressor.latency.widths import width_steps

__all__ = [
    "Bench",
    "Case",
    "LatencyModel",
    "LatencyTable",
    "Layer",
    "OnnxBench",
    "layers_of",
    "measure_table",
    "portable_layers",
    "read_given_table",
    "read_table",
    "width_steps",
    "write_table",
]
