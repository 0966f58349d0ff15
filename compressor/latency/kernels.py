"""Build the smallest ONNX network that has one kind of layer and nothing else.

Weights are constants, as in a deployed network: the runtime folds and packs them before the first
call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from compressor.latency.sketches import (
    Literals,
    Sizes,
    Sketch,
    attention,
    batch_norm,
    concat,
    continue_with,
    convolution,
    elementwise,
    gather,
    group_norm,
    layer_norm,
    linear,
    pooling,
    product,
    recurrent,
    reduction,
    softmax,
    transpose,
)

_OPSET, _IR_VERSION = 20, 10


@dataclass(frozen=True)
class Kernel:
    """A kind of layer: how it is drawn in ONNX, and where its cost may rise in steps.

    Attributes:
        sketch: Draws it, at given sizes and with given literals.
        stepped: The sizes whose cost may rise in steps.
        probe: Sizes around which the steps are looked for, and literals.
    """

    sketch: Callable[[Sizes, Literals], Sketch]
    stepped: tuple[str, ...] = ()
    probe: tuple[Sizes, Literals] = field(default_factory=lambda: ({}, {}))


def network_of(kind: str, sizes: Sizes, literals: Literals, *, with_weights: bool = True) -> bytes:
    """Return the ONNX network of one layer, serialised.

    Args:
        kind: A row of `KERNELS`.
        sizes: The sizes that the kind names.
        literals: Numbers and words that no pruning changes.
        with_weights: Off: the runtime fills them in when it opens the network, which is then small
            enough to be sent along.
    """
    sketch = continue_with(KERNELS[kind].sketch(sizes, literals), literals.get("then", ()))
    inputs = [
        helper.make_tensor_value_info(
            name, TensorProto.INT64 if name in sketch.indices else TensorProto.FLOAT, shape
        )
        for name, shape in sketch.inputs.items()
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    make = _draw if with_weights else _describe
    made, weights = make(sketch.weights)
    graph = helper.make_graph([*made, *sketch.nodes], "layer", inputs, outputs, weights)
    opset = helper.make_opsetid("", _OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION)
    content: bytes = model.SerializeToString()
    return content


def _draw(shapes: Mapping[str, tuple[int, ...]]) -> _Constants:
    return [], [numpy_helper.from_array(_fill(s), name) for name, s in shapes.items()]


def _describe(shapes: Mapping[str, tuple[int, ...]]) -> _Constants:
    """Return nodes that fill weights in when the network is opened, and the shapes they need."""
    # Not 0 or 1, which an optimisation would take out as having no effect.
    value = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.75])
    nodes = [
        helper.make_node("ConstantOfShape", [f"{name}_shape"], [name], value=value)
        for name in shapes
    ]
    sizes = [
        helper.make_tensor(f"{name}_shape", TensorProto.INT64, [len(s)], s)
        for name, s in shapes.items()
    ]
    return nodes, sizes


_Constants = tuple[list[NodeProto], list[TensorProto]]


def _fill(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Return positive numbers of about one: no kernel skips them, none becomes denormal."""
    return np.resize(np.linspace(0.5, 1.5, 1021, dtype=np.float32), shape)


def _image(side: int) -> Literals:
    """Return the literals of a 3x3 convolution that keeps its side x side positions."""
    literals: dict[str, Any] = dict.fromkeys(("stride", "padding", "dilation"), (1, 1))
    return {**literals, "positions": (side, side), "kernel": (3, 3), "transposed": False}


_CONVOLUTION = ({"batch": 1, "groups": 1, "in": 64, "out": 64}, _image(28))
_GROUPED = ({"batch": 1, "groups": 2, "in": 32, "out": 32}, _image(28))
_DEPTHWISE = ({"batch": 1, "groups": 64, "in": 1, "out": 1}, _image(56))
_MATRIX = ({"rows": 1024, "in": 64, "out": 64}, {"matrix": True, "bias": True})

KERNELS: dict[str, Kernel] = {
    "convolution": Kernel(convolution, ("in", "out"), _CONVOLUTION),
    "grouped_convolution": Kernel(convolution, ("in", "out"), _GROUPED),
    "depthwise_convolution": Kernel(convolution, ("groups",), _DEPTHWISE),
    "linear": Kernel(linear, ("in", "out"), _MATRIX),
    "product": Kernel(product),
    "attention": Kernel(attention),
    "elementwise": Kernel(elementwise),
    "softmax": Kernel(softmax),
    "layer_norm": Kernel(layer_norm),
    "reduction": Kernel(reduction),
    "pooling": Kernel(pooling),
    "batch_norm": Kernel(batch_norm),
    "instance_norm": Kernel(group_norm),
    "group_norm": Kernel(group_norm),
    "transpose": Kernel(transpose),
    "concat": Kernel(concat),
    "gather": Kernel(gather),
    "recurrent": Kernel(recurrent),
}
"""All kinds of layers, by name."""
