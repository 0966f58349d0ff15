"""Analyse a network: a program and rules become axes, groups, protections and costs."""

from compressor.graph.analysis import analyse

__all__ = ["analyse"]
