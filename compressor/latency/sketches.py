"""Draw each kind of layer in ONNX.

Helpers, whose time is not counted, have names that begin with `BESIDE`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import onnx
from onnx import helper

BESIDE = "beside"
_FEW = 4  # channels that every number of channels can be computed from at little cost

Sizes = Mapping[str, int]
Literals = Mapping[str, Any]


@dataclass(frozen=True)
class Sketch:
    """A small ONNX network to be: its nodes, and the shapes of what they read.

    Attributes:
        nodes: The last one makes `y`.
        inputs: The shape of each input.
        weights: The shape of each constant weight.
        indices: The inputs of whole numbers, all one.
    """

    nodes: tuple[onnx.NodeProto, ...]
    inputs: Mapping[str, tuple[int, ...]]
    weights: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    indices: tuple[str, ...] = ()


def continue_with(sketch: Sketch, then: tuple[str, ...]) -> Sketch:
    """Return the sketch with more operators on its result, which the runtime does within it.

    The name of the last node's output is changed in place.
    """
    nodes = list(sketch.nodes)
    for i, op in enumerate(op for op in then if op != "Add"):
        nodes[-1].output[0] = f"part{i}"
        nodes += _unary(op, f"part{i}")
    return replace(sketch, nodes=tuple(nodes))


def _unary(op: str, given: str) -> list[onnx.NodeProto]:
    """Return the nodes of an activation of one tensor.

    ONNX has some as two operators or with constants.
    """
    if op == "Swish":
        return [helper.make_node("Sigmoid", [given], ["gate"]), _node("Mul", f"{given} gate")]
    if op == "Clip":
        ends = {"low": 0.0, "high": 6.0}
        constants = [helper.make_node("Constant", [], [n], value_float=v) for n, v in ends.items()]
        return [*constants, _node("Clip", f"{given} low high")]
    return [_node(op, given)]


def _node(op: str, inputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), ["y"], **attributes)


def convolution(sizes: Sizes, literals: Literals) -> Sketch:
    """Draw a convolution, or a transposed one, over [batch, groups*in, ...] positions."""
    groups, inner, outer = sizes["groups"], sizes["in"], sizes["out"]
    transposed, kernel = literals["transposed"], literals["kernel"]
    rows = (groups * inner, outer) if transposed else (groups * outer, inner)
    attributes = {
        "group": groups,
        "strides": literals["stride"],
        "dilations": literals["dilation"],
        **_pads(literals["padding"]),
    }
    own = Sketch(
        (_node("ConvTranspose" if transposed else "Conv", "x w b", **attributes),),
        {"x": (sizes["batch"], groups * inner, *literals["positions"])},
        {"w": (*rows, *kernel), "b": (groups * outer,)},
    )
    return _residual(own, sizes, literals) if "Add" in literals.get("then", ()) else own


def _residual(sketch: Sketch, sizes: Sizes, literals: Literals) -> Sketch:
    """Return the sketch with a residual added, in the layout that such operators leave."""
    sketch.nodes[-1].output[0] = "own"
    channels = sizes["groups"] * sizes["out"]
    other = {"batch": sizes["batch"], "channels": channels, "positions": literals["results"]}
    beside = _between(_node("Add", "z own"), other)
    return Sketch(
        (*sketch.nodes, *beside.nodes),
        {**sketch.inputs, **beside.inputs},
        {**sketch.weights, **beside.weights},
    )


def _pads(padding: Any) -> dict[str, Any]:
    if isinstance(padding, str):
        return {"auto_pad": {"same": "SAME_UPPER"}.get(padding, "VALID")}
    return {"pads": [*padding, *padding]}


def linear(sizes: Sizes, literals: Literals) -> Sketch:
    """Draw a linear layer: one Gemm for a matrix [rows, in], else a product and a sum."""
    rows, inner, outer = sizes["rows"], sizes["in"], sizes["out"]
    bias = {"b": (outer,)} if literals["bias"] else {}
    if literals["matrix"]:
        node = _node("Gemm", "x w b" if bias else "x w", transB=1)
        return Sketch((node,), {"x": (rows, inner)}, {"w": (outer, inner), **bias})
    nodes = [helper.make_node("MatMul", ["x", "w"], ["product" if bias else "y"])]
    nodes += [_node("Add", "product b")] if bias else []
    return Sketch(tuple(nodes), {"x": (1, rows, inner)}, {"w": (inner, outer), **bias})


def product(sizes: Sizes, literals: Literals) -> Sketch:
    """Draw a product of two activations, [lead, m, k] by [lead, k, n]."""
    lead, m, k, n = (sizes[name] for name in ("lead", "m", "k", "n"))
    return Sketch((_node("MatMul", "a b"),), {"a": (lead, m, k), "b": (lead, k, n)})


def attention(sizes: Sizes, literals: Literals) -> Sketch:
    """Draw attention as products and a softmax.

    The inputs are q [1, lead, t, e], k [1, lead, s, e] and v [1, lead, s, f].
    """
    lead, t, s, e, f = (sizes[name] for name in ("lead", "t", "s", "e", "f"))
    nodes = (
        helper.make_node("Transpose", ["k"], ["turned"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["q", "turned"], ["scores"]),
        helper.make_node("Mul", ["scores", "scale"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["shares"], axis=-1),
        _node("MatMul", "shares v"),
    )
    inputs = {"q": (1, lead, t, e), "k": (1, lead, s, e), "v": (1, lead, s, f)}
    return Sketch(nodes, inputs, {"scale": ()})


def elementwise(sizes: Sizes, literals: Literals) -> Sketch:
    """Draw an operator over [elements], of one tensor or of two."""
    op, shape = literals["op"], (sizes["elements"],)
    if literals["tensors"] == 2:
        return Sketch((_node(op, "x z"),), {"x": shape, "z": shape})
    return Sketch(tuple(_unary(op, "x")), {"x": shape})


def softmax(sizes: Sizes, literals: Literals) -> Sketch:
    """Draw a softmax over the last dimension of [rows, width]."""
    return Sketch((_node("Softmax", "x", axis=-1),), {"x": (sizes["rows"], sizes["width"])})


def layer_norm(sizes: Sizes, literals: Literals) -> Sketch:
    """Draw a layer norm over the last dimension of [1, rows, width]."""
    width = (sizes["width"],)
    node = _node("LayerNormalization", "x w b", axis=-1)
    return Sketch((node,), {"x": (1, sizes["rows"], *width)}, {"w": width, "b": width})


def reduction(sizes: Sizes, literals: Literals) -> Sketch:
    """Draw a mean over all rows*width numbers."""
    node = _node("ReduceMean", "x", keepdims=0)
    return Sketch((node,), {"x": (sizes["rows"] * sizes["width"],)})


def _between(node: onnx.NodeProto, x: Mapping[str, Any], **weights: Any) -> Sketch:
    """Draw a node after a convolution and a pooling.

    So its first tensor, `x`, has the layout that such operators leave.
    """
    channels, rank = x["channels"], len(x["positions"])
    if not rank:
        return Sketch((node,), {"x": (x["batch"], channels)}, weights)
    given, made, pooled = (f"{BESIDE}_{name}" for name in ("given", "made", "pooled"))
    ones = [1] * rank
    before = (
        helper.make_node("Conv", [given, f"{BESIDE}_w"], [made], name=made),
        helper.make_node("MaxPool", [made], [pooled], name=pooled, kernel_shape=ones),
    )
    node.input[0] = pooled
    shape = (x["batch"], _FEW, *x["positions"])
    weights |= {f"{BESIDE}_w": (channels, _FEW, *ones)}
    return Sketch((*before, node), {given: shape}, weights)


def pooling(sizes: Sizes, literals: Literals) -> Sketch:
    """Draw a pooling over [batch, channels, ...]; a global one if its window is all positions."""
    if literals["kernel"] == literals["positions"] and not any(literals["padding"]):
        return _between(_node(f"Global{literals['op']}", "x"), {**sizes, **literals})
    attributes = {
        "kernel_shape": literals["kernel"],
        "strides": literals["stride"],
        "ceil_mode": int(literals["ceil_mode"]),
        **_pads(literals["padding"]),
    }
    return _between(_node(literals["op"], "x", **attributes), {**sizes, **literals})


def batch_norm(sizes: Sizes, literals: Literals) -> Sketch:
    """Draw a batch norm in inference form over [batch, channels, ...]."""
    vectors = dict.fromkeys(("w", "b", "mean", "var"), (sizes["channels"],))
    node = _node("BatchNormalization", "x w b mean var")
    return _between(node, {**sizes, **literals}, **vectors)


def group_norm(sizes: Sizes, literals: Literals) -> Sketch:
    """Draw a group norm as the instance norm of groups; an instance norm has one per channel."""
    channels, positions = sizes["channels"], math.prod(literals["positions"])
    groups = min(channels, literals.get("num_groups") or channels)
    shape = (sizes["batch"], groups, channels // groups * positions)
    node = _node("InstanceNormalization", "x w b")
    return Sketch((node,), {"x": shape}, {"w": (groups,), "b": (groups,)})


def transpose(sizes: Sizes, literals: Literals) -> Sketch:
    """Draw a change of the order of dimensions."""
    shape = tuple(sizes[f"size{d}"] for d in range(len(literals["order"])))
    return Sketch((_node("Transpose", "x", perm=literals["order"]),), {"x": shape})


def concat(sizes: Sizes, literals: Literals) -> Sketch:
    """Draw tensors laid side by side, nearly equal parts of [outer, inner]."""
    count, inner = max(1, literals["tensors"]), sizes["inner"]
    ends = [inner * i // count for i in range(count + 1)]
    inputs = {f"x{i}": (sizes["outer"], b - a) for i, (a, b) in enumerate(pairwise(ends))}
    return Sketch((_node("Concat", " ".join(inputs), axis=1),), inputs)


def gather(sizes: Sizes, literals: Literals) -> Sketch:
    """Draw a look-up of rows in a table [2, width]."""
    inputs, table = {"x": (sizes["rows"],)}, {"w": (2, sizes["width"])}
    return Sketch((_node("Gather", "w x"),), inputs, table, indices=("x",))


def recurrent(sizes: Sizes, literals: Literals) -> Sketch:
    """Draw a recurrent network, one ONNX node per layer.

    The first layer reads `in`, the others what all directions of the one before made.
    """
    hidden, directions, gates = sizes["hidden"], literals["directions"], literals["gates"]
    shape, count = (sizes["steps"], sizes["batch"]), literals["layers"]
    nodes, weights = list[onnx.NodeProto](), dict[str, tuple[int, ...]]()
    last, width = "x", sizes["in"]
    for i in range(count):
        rows = (directions, gates * hidden)
        weights |= {f"w{i}": (*rows, width), f"r{i}": (*rows, hidden)}
        weights[f"b{i}"] = (directions, 2 * gates * hidden)
        width, is_last = directions * hidden, i == count - 1
        nodes += [
            helper.make_node(
                literals["op"],
                [last, f"w{i}", f"r{i}", f"b{i}"],
                [f"made{i}"],
                hidden_size=hidden,
                direction="bidirectional" if directions == 2 else "forward",
            ),
            helper.make_node("Transpose", [f"made{i}"], [f"turned{i}"], perm=[0, 2, 1, 3]),
            helper.make_node("Constant", [], [f"shape{i}"], value_ints=[*shape, width]),
            helper.make_node(
                "Reshape", [f"turned{i}", f"shape{i}"], ["y" if is_last else f"joined{i}"]
            ),
        ]
        last = f"joined{i}"
    return Sketch(tuple(nodes), {"x": (*shape, sizes["in"])}, weights)
