"""Each kind of layer as PyTorch computes it: a call on tensors that it makes itself.

What ONNX Runtime does within an operator (an addition, an activation) PyTorch does after it, as a
pass of its own; a batch norm that is folded there is left out here, so that networks with many of
them are predicted too quick, until the whole network's own time is taken into account.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.clock import Call
from compressor.latency.sketches import Literals, Sizes


@dataclass(frozen=True)
class Makers:
    """Makes a layer's tensors: on a device, in a type, images channels last or not."""

    device: str
    dtype: torch.dtype
    channels_last: bool

    def __call__(self, *shape: int) -> Tensor:
        """Draw numbers between 0.5 and 1.5 of a shape: no kernel skips them, none is denormal."""
        made = torch.rand(shape, device=self.device).add_(0.5).to(self.dtype)
        is_image = self.channels_last and made.ndim == 4
        return made.contiguous(memory_format=torch.channels_last) if is_image else made


def call_of(kind: str, sizes: Sizes, literals: Literals, make: Makers) -> Call:
    """Make the call of a layer of a kind, a row of `kernels.KERNELS`, at given sizes."""
    own = LAYERS[kind](sizes, literals, make)
    then = [_after(op, sizes, literals, make) for op in literals.get("then", ())]
    return (lambda: reduce(lambda x, step: step(x), then, own())) if then else own


def _after(op: str, sizes: Sizes, literals: Literals, make: Makers) -> Callable[[Tensor], Tensor]:
    if op != "Add":
        return UNARY.get(op, torch.abs)
    channels = sizes["groups"] * sizes["out"]
    other = make(sizes["batch"], channels, *literals["results"])
    return lambda x: x + other


def _convolution(sizes: Sizes, literals: Literals, make: Makers) -> Call:
    groups, inner, outer = sizes["groups"], sizes["in"], sizes["out"]
    transposed, kernel = literals["transposed"], literals["kernel"]
    rows = (groups * inner, outer) if transposed else (groups * outer, inner)
    x = make(sizes["batch"], groups * inner, *literals["positions"])
    weight, rank = make(*rows, *kernel), len(kernel)
    name = f"conv_transpose{rank}d" if transposed else f"conv{rank}d"
    how = {name: literals[name] for name in ("stride", "padding", "dilation")}
    run: Any = getattr(F, name)
    return lambda: run(x, weight, groups=groups, **how)


def _linear(sizes: Sizes, literals: Literals, make: Makers) -> Call:
    x, weight = make(sizes["rows"], sizes["in"]), make(sizes["out"], sizes["in"])
    bias = make(sizes["out"]) if literals["bias"] else None
    return lambda: F.linear(x, weight, bias)


def _product(sizes: Sizes, literals: Literals, make: Makers) -> Call:
    lead, m, k, n = (sizes[name] for name in ("lead", "m", "k", "n"))
    a, b = make(lead, m, k), make(lead, k, n)
    return lambda: torch.bmm(a, b)


def _attention(sizes: Sizes, literals: Literals, make: Makers) -> Call:
    lead, t, s, e, f = (sizes[name] for name in ("lead", "t", "s", "e", "f"))
    q, k, v = make(1, lead, t, e), make(1, lead, s, e), make(1, lead, s, f)
    return lambda: F.scaled_dot_product_attention(q, k, v)


UNARY: Mapping[str, Callable[[Tensor], Tensor]] = {
    "Relu": F.relu,
    "Clip": F.relu6,
    "Sigmoid": torch.sigmoid,
    "HardSigmoid": F.hardsigmoid,
    "HardSwish": F.hardswish,
    "Tanh": torch.tanh,
    "Gelu": F.gelu,
    "Mish": F.mish,
    "Elu": F.elu,
    "LeakyRelu": F.leaky_relu,
    "Softplus": F.softplus,
    "Exp": torch.exp,
    "Erf": torch.erf,
    "Sqrt": torch.sqrt,
    "Swish": F.silu,
    "Abs": torch.abs,
}
"""By the name in ONNX, which layers go by."""

_BINARY: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add,
    "Mul": torch.mul,
    "Div": torch.div,
    "Pow": torch.pow,
}


def _elementwise(sizes: Sizes, literals: Literals, make: Makers) -> Call:
    x, op = make(sizes["elements"]), literals["op"]
    if literals["tensors"] == 2:
        other, both = make(sizes["elements"]), _BINARY[op]
        return lambda: both(x, other)
    one = UNARY.get(op, torch.abs)
    return lambda: one(x)


def _softmax(sizes: Sizes, literals: Literals, make: Makers) -> Call:
    x = make(sizes["rows"], sizes["width"])
    return lambda: torch.softmax(x, -1)


def _layer_norm(sizes: Sizes, literals: Literals, make: Makers) -> Call:
    width = sizes["width"]
    x, weight, bias = make(sizes["rows"], width), make(width), make(width)
    return lambda: F.layer_norm(x, (width,), weight, bias)


def _reduction(sizes: Sizes, literals: Literals, make: Makers) -> Call:
    x = make(sizes["rows"], sizes["width"])
    return lambda: x.mean(1)


def _pooling(sizes: Sizes, literals: Literals, make: Makers) -> Call:
    x, rank = (
        make(sizes["batch"], sizes["channels"], *literals["positions"]),
        len(literals["kernel"]),
    )
    name = "max_pool" if literals["op"] == "MaxPool" else "avg_pool"
    run: Any = getattr(F, f"{name}{rank}d")
    how = {name: literals[name] for name in ("stride", "padding", "ceil_mode")}
    return lambda: run(x, literals["kernel"], **how)


def _batch_norm(sizes: Sizes, literals: Literals, make: Makers) -> Call:
    channels = sizes["channels"]
    x = make(sizes["batch"], channels, *literals["positions"])
    mean, variance, weight, bias = (make(channels) for _ in range(4))
    return lambda: F.batch_norm(x, mean, variance, weight, bias)


def _group_norm(sizes: Sizes, literals: Literals, make: Makers) -> Call:
    """Make a group norm; an instance norm has a group per channel."""
    channels = sizes["channels"]
    groups = math.gcd(channels, literals.get("num_groups") or channels)
    x, weight, bias = (
        make(sizes["batch"], channels, *literals["positions"]),
        make(channels),
        make(channels),
    )
    return lambda: F.group_norm(x, groups, weight, bias)


def _transpose(sizes: Sizes, literals: Literals, make: Makers) -> Call:
    order = literals["order"]
    x = make(*(sizes[f"size{d}"] for d in range(len(order)))).contiguous()
    return lambda: x.permute(order).contiguous()


def _concat(sizes: Sizes, literals: Literals, make: Makers) -> Call:
    count, inner = max(1, literals["tensors"]), sizes["inner"]
    ends = [inner * i // count for i in range(count + 1)]
    tensors = [make(sizes["outer"], b - a) for a, b in pairwise(ends)]
    return lambda: torch.cat(tensors, 1)


def _gather(sizes: Sizes, literals: Literals, make: Makers) -> Call:
    table = make(2, sizes["width"])
    rows = torch.ones(sizes["rows"], dtype=torch.long, device=make.device)
    return lambda: F.embedding(rows, table)


def _recurrent(sizes: Sizes, literals: Literals, make: Makers) -> Call:
    layer = getattr(nn, literals["op"])(
        sizes["in"],
        sizes["hidden"],
        num_layers=literals["layers"],
        bidirectional=literals["directions"] == 2,
    ).to(make.device, make.dtype)
    x = make(sizes["steps"], sizes["batch"], sizes["in"])
    return lambda: layer(x)[0]


LAYERS: Mapping[str, Callable[[Sizes, Literals, Makers], Any]] = {
    **dict.fromkeys(("convolution", "grouped_convolution", "depthwise_convolution"), _convolution),
    "linear": _linear,
    "product": _product,
    "attention": _attention,
    "elementwise": _elementwise,
    "softmax": _softmax,
    "layer_norm": _layer_norm,
    "reduction": _reduction,
    "pooling": _pooling,
    "batch_norm": _batch_norm,
    "instance_norm": _group_norm,
    "group_norm": _group_norm,
    "transpose": _transpose,
    "concat": _concat,
    "gather": _gather,
    "recurrent": _recurrent,
}
"""By kind, as `kernels.KERNELS` has them."""
