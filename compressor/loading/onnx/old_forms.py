"""Give older operators the form of the newest: what was an attribute becomes an input.

A Split says into how many parts, as its newest form does, since not all need be wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from compressor.loading.onnx.contents import Node
from compressor.loading.onnx.small_numbers import Array

INT64, FLOAT = onnx.TensorProto.INT64, onnx.TensorProto.FLOAT

MOVED: Mapping[str, Mapping[str, tuple[int, int]]] = {
    "Clip": {"min": (1, FLOAT), "max": (2, FLOAT)},
    "Dropout": {"ratio": (1, FLOAT)},
    "Pad": {"pads": (1, INT64), "value": (2, FLOAT)},
    "Slice": {"starts": (1, INT64), "ends": (2, INT64), "axes": (3, INT64)},
    "Split": {"split": (1, INT64)},
    "Squeeze": {"axes": (1, INT64)},
    "TopK": {"k": (1, INT64)},
    "Unsqueeze": {"axes": (1, INT64)},
    "Upsample": {"scales": (1, FLOAT)},
    **{
        f"Reduce{kind}": {"axes": (1, INT64)}
        for kind in [
            "L1",
            "L2",
            "LogSum",
            "LogSumExp",
            "Max",
            "Mean",
            "Min",
            "Prod",
            "Sum",
            "SumSquare",
        ]
    },
}
"""Operator -> attribute of its older versions -> position and type of the input of that name."""


def attributes_as_inputs(node: Node, keep: Callable[[str, Array, int], None]) -> Node:
    """Return the node in its newest form.

    Args:
        node: The node; not changed.
        keep: Takes the name, values and type of each constant that becomes an input.
    """
    if node.op == "Split":
        node = replace(node, attributes={"num_outputs": len(node.outputs), **node.attributes})
    moved = {n: place for n, place in MOVED.get(node.op, {}).items() if n in node.attributes}
    if not moved:
        return node
    inputs = list(node.inputs)
    for attribute, (position, kind) in moved.items():
        value: Any = node.attributes[attribute]
        name = f"{node.name}@{node.place}/{attribute}"
        value = [value] if node.op == "TopK" else value
        keep(name, np.array(value, onnx.helper.tensor_dtype_to_np_dtype(kind)), kind)
        inputs += [""] * (position + 1 - len(inputs))
        inputs[position] = name
    rest = {name: value for name, value in node.attributes.items() if name not in moved}
    return replace(node, inputs=tuple(inputs), attributes=rest)


def attribute_of(op: str, position: int) -> str:
    """Return the attribute that older versions of an operator have for an input, or ""."""
    names = (name for name, (at, _) in MOVED.get(op, {}).items() if at == position)
    return next(names, "")
