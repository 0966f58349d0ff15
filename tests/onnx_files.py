"""Make small ONNX files: networks by PyTorch's exporters, graphs by hand."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def export(
    model: nn.Module, inputs: Sequence[Tensor], path: Path, opset: int | None = None
) -> Path:
    """Write a network by the new exporter, or at a version by the older one; its batch is free."""
    model.eval()
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if opset is None:
            free = tuple({0: torch.export.Dim("batch")} for _ in inputs)
            torch.onnx.export(
                *(model, tuple(inputs), path),
                dynamo=True,
                verbose=False,
                external_data=False,
                dynamic_shapes=free,
            )
        else:
            names = [f"input.{i}" for i in range(len(inputs))]
            torch.onnx.export(
                *(model, tuple(inputs), path),
                dynamo=False,
                opset_version=opset,
                input_names=names,
                output_names=["out"],
                dynamic_axes={name: {0: "batch"} for name in names},
            )
    logging.disable(level)
    return path


def graph(
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, Any],
    *,
    inputs: dict[str, tuple[int, Sequence[Any]]],
    outputs: int | dict[str, int] = 2,
    opset: int = 17,
) -> onnx.ModelProto:
    """Make a model of nodes; `outputs` are floats of so many free sizes, alone it is called out."""
    ranks = outputs if isinstance(outputs, dict) else {"out": outputs}
    made = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(n, kind, list(dims)) for n, (kind, dims) in inputs.items()],
        [helper.make_tensor_value_info(n, FLOAT, [None] * rank) for n, rank in ranks.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return model


def perceptron() -> onnx.ModelProto:
    """A perceptron with one hidden layer, as other exporters write it: MatMul and Add."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    return graph(
        [
            helper.make_node("MatMul", ["x", "dense/kernel:0"], ["a"], name="dense/MatMul"),
            helper.make_node("Add", ["a", "dense/bias:0"], ["b"], name="dense/BiasAdd"),
            helper.make_node("Relu", ["b"], ["c"], name="relu"),
            helper.make_node("MatMul", ["c", "head/kernel:0"], ["out"], name="head/MatMul"),
        ],
        {
            "dense/kernel:0": draw(6, 12),
            "dense/bias:0": draw(12),
            "head/kernel:0": draw(12, 3),
        },
        inputs={"x": (FLOAT, ["batch", 6])},
    )


def save(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def run(path: Path, *inputs: Tensor) -> list[np.ndarray[Any, Any]]:
    """Run a file on ONNX Runtime."""
    session = onnxruntime.InferenceSession(str(path))
    feeds = {s.name: x.numpy() for s, x in zip(session.get_inputs(), inputs, strict=True)}
    found: list[np.ndarray[Any, Any]] = session.run(None, feeds)
    return found
