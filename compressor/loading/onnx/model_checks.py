"""Check a parsed ONNX file before anything of its graph is read."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx.inliner import inline_local_functions

from compressor.listing import some_of
from compressor.loading.onnx.parsing import graphs_of
from compressor.loading.onnx.saying import damaged, refused

QUANTISED = ("Quant", "QLinear", "Integer", "QGemm", "QAttention")
"""Parts of the names of operators that compute in few bits."""


def check_model(model: onnx.ModelProto) -> None:
    """Refuse what can be told before anything of the graph is read."""
    if not model.opset_import:
        raise damaged("the file does not say which version of ONNX's operators it is in")
    quantised = {
        node.op_type
        for graph in graphs_of(model.graph)
        for node in graph.node
        if any(part in node.op_type for part in QUANTISED)
    }
    if quantised:
        raise refused(
            f"the network is quantised ({some_of(sorted(quantised))})",
            next_step="compress first, then quantise: give the file in float, as it was before",
        )
    if any(graph.sparse_initializer for graph in graphs_of(model.graph)):
        raise refused("the file holds sparse tensors", next_step="write them as dense ones")


def inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with the functions that it defines put in place of their calls."""
    try:
        return inline_local_functions(model)
    except Exception as error:  # the library's own, which share no base
        raise damaged("the functions within the file cannot be put in place of their calls") from (
            error
        )


def check_with_onnx(model: onnx.ModelProto, path: Path) -> None:
    """Let ONNX's own checker look at a file whose data are all within it."""
    if any(
        tensor.data_location == onnx.TensorProto.EXTERNAL
        for graph in graphs_of(model.graph)
        for tensor in graph.initializer
    ):
        return
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, UnicodeError) as error:
        first = " ".join(str(error).split())[:200]
        raise damaged(f"ONNX's own checker refuses the file: {first}", str(path)) from error
