"""Remove the assertions from programs that follow one branch of their data."""

from __future__ import annotations

import copy

import torch
from torch.export import ExportedProgram

_ASSERTION = torch.ops.aten._assert_scalar.default


def drop_assertions(program: ExportedProgram) -> ExportedProgram:
    """Return the program without assertions on single numbers and what is computed for them alone.

    The program itself is returned where it has none; it is not changed. ONNX knows no assertions,
    and torch's exporter fails on a number that is read out of a tensor and was fixed when the
    branch was captured.
    """
    if not program.graph.find_nodes(op="call_function", target=_ASSERTION):
        return program
    copied = copy.copy(program)
    copied._graph_module = copy.deepcopy(program.graph_module)
    graph = copied.graph_module.graph
    for node in graph.find_nodes(op="call_function", target=_ASSERTION):
        graph.erase_node(node)
    graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
    copied.graph_module.recompile()
    return copied
