"""Latency predicted from measured layers: what a network takes at widths that nobody has built."""

from compressor.latency.bench import Bench, Case, OnnxBench, check_provider
from compressor.latency.layers import Layer, layers_of
from compressor.latency.measuring import given_table, measured_table
from compressor.latency.model import LatencyModel
from compressor.latency.table import LatencyTable, read_table, write_table

__all__ = [
    "Bench",
    "Case",
    "LatencyModel",
    "LatencyTable",
    "Layer",
    "OnnxBench",
    "check_provider",
    "given_table",
    "layers_of",
    "measured_table",
    "read_table",
    "write_table",
]
