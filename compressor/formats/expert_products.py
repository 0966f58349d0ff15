"""Write the products of mixtures of experts, for which the exporter has no words, as ONNX."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from torch.export import ExportedProgram

from compressor.graph.programs.nodes import operator_of

GROUPED = "transformers.grouped_mm_fallback.default"
"""The operator of transformers that multiplies each row with its expert's weights."""


def words_for_experts(program: ExportedProgram) -> dict[Any, Callable[..., Any]]:
    """Return how the exporter is to write the products of rows with experts' weights, if any."""
    return {n.target: _one_by_one for n in program.graph.nodes if operator_of(n) == GROUPED}


def _one_by_one(input: Any, weight: Any, offs: Any) -> Any:
    """Multiply the rows of one expert after the other, and join them again.

    Args:
        input: Rows in the order of their experts, [rows, in].
        weight: [experts, in, out].
        offs: Where the rows of each expert end, [experts].
    """
    op: Any = import_module("onnxscript").opset18
    before, pieces = op.Constant(value_ints=[0]), []
    ends = op.Cast(offs, to=7)  # INT64
    axis = op.Constant(value_ints=[0])
    for expert in range(weight.shape[0]):
        first, last = (op.Constant(value_ints=[n]) for n in (expert, expert + 1))
        end = op.Slice(ends, first, last, axis)
        own = op.Squeeze(op.Slice(weight, first, last, axis), axis)
        pieces.append(op.MatMul(op.Slice(input, before, end, axis), own))
        before = end
    return op.Concat(*pieces, axis=0)
