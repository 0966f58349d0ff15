"""Read nodes of each family as kernel calls: the kind of kernel, its sizes, its literals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from compressor.graph.network import Shape
from compressor.graph.programs.nodes import base_name, operand, schema_names
from compressor.latency.operands import Operands, Reader, Reading

_ONNX_ELEMENTWISE = {
    "Relu": "relu threshold",
    "Clip": "hardtanh clamp clamp_min clamp_max relu6",
    "Sigmoid": "sigmoid",
    "HardSigmoid": "hardsigmoid",
    "HardSwish": "hardswish",
    "Tanh": "tanh",
    "Gelu": "gelu",
    "Mish": "mish",
    "Elu": "elu selu celu",
    "LeakyRelu": "leaky_relu prelu",
    "Softplus": "softplus",
    "Exp": "exp",
    "Erf": "erf",
    "Sqrt": "sqrt rsqrt",
    "Swish": "silu",
}
BINARY = {"Add": "add sub", "Mul": "mul", "Div": "div", "Pow": "pow"}
ONNX_OPS = {
    name: op for op, names in (_ONNX_ELEMENTWISE | BINARY).items() for name in names.split()
}
"""Operator -> its name in ONNX, where it takes one tensor or, in `BINARY`, two."""


def free(operands: Operands) -> None:
    """Read a view, which moves nothing and so has no reading."""


def elementwise(op: str, tensors: int = 1) -> Reader:
    """Make a reader of one pass over the result.

    Args:
        op: The ONNX operator.
        tensors: How many tensors it reads, each as large as the result.
    """
    return lambda o: Reading("elementwise", {"elements": o.out}, {"op": op, "tensors": tensors})


def convolution(rank: int, *, transposed: bool = False) -> Reader:
    """Make a reader of convolutions over `rank` dimensions.

    x[n, g*i, ...], weight[g*o, i, ...]; where it is transposed weight[g*i, o, ...].
    """

    def read(o: Operands) -> Reading:
        weight, given, made = o.shape("weight"), o.x[-rank - 1], o.out[-rank - 1]
        sizes: dict[str, Any] = {"groups": (), "in": (given,), "out": (made,)}
        kind = "convolution"
        if o.get("groups", 1) > 1:
            near, far = ("out", "in") if transposed else ("in", "out")
            whole, other = (made, given) if transposed else (given, made)
            of_group = weight[1]
            sizes["groups"] = ((whole,), (of_group,))
            sizes[near], sizes[far] = (of_group,), ((other, of_group), (whole,))
            is_depthwise = of_group.size == 1 and other.size == whole.size
            kind = "depthwise_convolution" if is_depthwise else "grouped_convolution"
        padding = o.get("padding", 0)
        return Reading(
            kind,
            {"batch": o.x[: -rank - 1], **sizes},
            {
                "positions": _sizes(o.x[-rank:]),
                "kernel": _sizes(weight[2:]),
                "stride": o.numbers("stride", rank),
                "padding": padding if isinstance(padding, str) else o.numbers("padding", rank, 0),
                "dilation": o.numbers("dilation", rank),
                "transposed": transposed,
                "results": _sizes(o.out[-rank:]),
                "then": _then(o),
            },
        )

    return read


def _then(o: Operands) -> tuple[str, ...]:
    """Return the ONNX operators that are done within, without batch norms, which are folded."""
    return tuple(ONNX_OPS[name] for name in o.within if name != "batch_norm")


def _sizes(dims: Shape) -> tuple[int, ...]:
    return tuple(dim.size for dim in dims)


def linear(o: Operands) -> Reading:
    """Read x[..., i] weight[o, i]; more than one leading dimension makes it a product and a sum."""
    is_matrix, has_bias = len(o.x) == 2, o.get("bias") is not None
    literals = {"matrix": is_matrix, "bias": has_bias, "then": _then(o)}
    return Reading("linear", {"rows": o.x[:-1], "in": o.x[-1:], "out": o.out[-1:]}, literals)


def addmm(o: Operands) -> Reading:
    """Read mat1[m, k] mat2[k, n] + self."""
    left = o.shape("mat1") or o.shape("batch1")
    sizes = {"rows": left[:-1], "in": left[-1:], "out": o.out[-1:]}
    literals = {"matrix": len(left) == 2, "bias": True, "then": _then(o)}
    return Reading("linear", sizes, literals)


def product(left: str, right: str) -> Reader:
    """Make a reader of left[..., m, k] right[..., k, n].

    By a stored matrix it is a linear layer without bias.
    """

    def read(o: Operands) -> Reading:
        a, b = o.shape(left), o.shape(right)
        weights = operand(o.node, right)
        if weights is not None and weights.op == "placeholder" and len(b) == 2:
            sizes = {"rows": a[:-1], "in": a[-1:], "out": b[-1:]}
            return Reading("linear", sizes, {"matrix": len(a) == 2, "bias": False, "then": ()})
        m, n = a[-2:-1], b[-1:] if len(b) > 1 else ()
        lead = o.out[: len(o.out) - len(m) - len(n)]
        return Reading("product", {"lead": lead, "m": m, "k": a[-1:], "n": n})

    return read


def by_experts(o: Operands) -> Reading:
    """Read x[s, i] weight[e, i, o], each row by the weights of its expert, as one linear layer."""
    sizes = {"rows": o.x[:1], "in": o.x[1:], "out": o.out[1:]}
    return Reading("linear", sizes, {"matrix": True, "bias": False, "then": ()})


def attention(o: Operands) -> Reading:
    """Read softmax(q[..., t, e] k[..., s, e]^T) v[..., s, f]."""
    q, v = o.shape("query"), o.shape("value")
    sizes = {"lead": q[:-2], "t": q[-2:-1], "s": v[-2:-1], "e": q[-1:], "f": v[-1:]}
    return Reading("attention", sizes)


def over_last(kind: str, taken: Callable[[Operands], int]) -> Reader:
    """Make a reader of a statistic over the last dimensions; `taken` says over how many."""

    def read(o: Operands) -> Reading:
        count = taken(o)
        split = len(o.out) - count
        return Reading(kind, {"rows": o.out[:split], "width": o.out[split:]})

    return read


def per_channel(kind: str, *literals: str) -> Reader:
    """Make a reader of x[n, c, ...] with a scale and a shift per channel.

    Args:
        kind: A row of `kernels.KERNELS`.
        literals: Names of arguments that are handed on.
    """
    return lambda o: Reading(
        kind,
        {"batch": o.out[:1], "channels": o.out[1:2]},
        {
            "positions": _sizes(o.out[2:]),
            "then": _then(o),
            **{name: o.get(name) for name in literals},
        },
    )


def pooling(op: str, rank: int) -> Reader:
    """Make a reader of x[n, c, ...] under windows that slide, in `rank` dimensions."""

    def read(o: Operands) -> Reading:
        kernel = o.numbers("kernel_size", rank)
        literals = {
            "op": op,
            "positions": _sizes(o.x[-rank:]),
            "kernel": kernel,
            "stride": o.numbers("stride", rank, 0) if o.get("stride") else kernel,
            "padding": o.numbers("padding", rank, 0),
            "ceil_mode": bool(o.get("ceil_mode", False)),
        }
        return Reading(
            "pooling", {"batch": o.x[: -rank - 1], "channels": _channels(o, rank)}, literals
        )

    return read


def adaptive_pooling(op: str, rank: int) -> Reader:
    """Make a reader of windows that divide the positions evenly, or nearly so."""

    def read(o: Operands) -> Reading:
        positions, results = _sizes(o.x[-rank:]), _sizes(o.out[-rank:])
        step = tuple(
            max(1, before // after) for before, after in zip(positions, results, strict=True)
        )
        literals: dict[str, Any] = {"op": op, "positions": positions, "kernel": step}
        literals |= {"stride": step, "padding": (0,) * rank, "ceil_mode": False}
        return Reading(
            "pooling", {"batch": o.x[: -rank - 1], "channels": _channels(o, rank)}, literals
        )

    return read


def _channels(o: Operands, rank: int) -> Shape:
    return o.x[-rank - 1 : len(o.x) - rank]


def reduction(o: Operands) -> Reading:
    """Read a mean or a sum: one pass over what is read, over the positions as a rule."""
    dims = o.get("dim") or range(len(o.x))
    taken = {d % len(o.x) for d in (dims if isinstance(dims, list | tuple | range) else [dims])}
    kept = tuple(dim for i, dim in enumerate(o.x) if i not in taken)
    return Reading("reduction", {"rows": kept, "width": tuple(o.x[i] for i in sorted(taken))})


def reordering(o: Operands) -> Reading | None:
    """Read dimensions in another order; None if only those of size one move, which costs
    nothing."""
    rank = len(o.x)
    if base_name(o.node) == "permute":
        order = [d % rank for d in o.get("dims")]
    else:
        one, other = (o.get(name) % rank for name in schema_names(o.node)[1:3])
        order = list(range(rank))
        order[one], order[other] = other, one
    long = [d for d in order if o.x[d].size != 1]
    if long == sorted(long):
        return None
    sizes = {f"size{d}": (o.x[d],) for d in range(rank)}
    return Reading("transpose", sizes, {"order": tuple(order)})


def joining(o: Operands) -> Reading:
    """Read tensors that are laid one after the other along one dimension."""
    at = (o.get("dim", 0)) % len(o.out)
    literals = {"tensors": len(o.node.all_input_nodes)}
    return Reading("concat", {"outer": o.out[:at], "inner": o.out[at:]}, literals)


def lookup(o: Operands) -> Reading:
    """Read the rows of a table by their numbers."""
    return Reading("gather", {"rows": o.out[:-1], "width": o.out[-1:]})


def recurrent(op: str, gates: int) -> Reader:
    """Make a reader of cells of [gates*hidden, in] and [gates*hidden, hidden], layer upon layer."""

    def read(o: Operands) -> Reading:
        hidden = o.shape("params.1")[-1:]
        at = 0 if o.get("batch_first") else 1
        sizes = {"batch": o.x[at : at + 1], "steps": o.x[1 - at : 2 - at], "in": o.x[-1:]}
        literals = {"op": op, "gates": gates, "layers": o.get("num_layers", 1)}
        literals |= {"directions": 2 if o.get("bidirectional") else 1}
        return Reading("recurrent", {**sizes, "hidden": hidden}, literals)

    return read
