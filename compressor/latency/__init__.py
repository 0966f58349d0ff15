"""Predict latency from measured layers: what a network takes at widths that nobody has built."""

from compressor.latency.filling import measure_table, read_given_table
from compressor.latency.latency_table import LatencyTable, read_table, write_table
from compressor.latency.layer_bench import Bench, Case, OnnxBench
from compressor.latency.layers import Layer, layers_of
from compressor.latency.machine import Setting
from compressor.latency.portable import portable_layers
from compressor.latency.predicting import LatencyModel
from compressor.latency.widths import width_steps

__all__ = [
    "Bench",
    "Case",
    "LatencyModel",
    "LatencyTable",
    "Layer",
    "OnnxBench",
    "Setting",
    "layers_of",
    "measure_table",
    "portable_layers",
    "read_given_table",
    "read_table",
    "width_steps",
    "write_table",
]
