"""Run operators that work element by element."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.loading.onnx.contents import TYPES
from compressor.loading.onnx.operators.invocation import Entry, NodeCall, table
from compressor.loading.onnx.small_numbers import Numbers


def unary(function: Callable[[Tensor], Tensor]) -> Entry:
    """Make an entry: out = f(x)."""
    return lambda call: function(call.x)


def logical(function: Callable[[Tensor, Tensor], Tensor]) -> Entry:
    """Make an entry: out = f(a, b), broadcast, for functions that take tensors alone."""
    return lambda call: function(call.tensor(0), call.tensor(1))


def arithmetic(function: Callable[[Any, Any], Any]) -> Entry:
    """Make an entry: out = f(a, b), broadcast, where either may be a single number."""

    def entry(call: NodeCall) -> Any:
        a, b = call.operand(0), call.operand(1)
        both = not isinstance(a, Tensor) and not isinstance(b, Tensor)
        return function(call.tensor(0) if both else a, b)

    return entry


def variadic(function: Callable[[Any, Any], Any]) -> Entry:
    """Make an entry: out = f(f(a, b), c) ..., broadcast."""

    def entry(call: NodeCall) -> Tensor:
        result = functools.reduce(function, [call.tensor(i) for i in range(len(call.inputs))])
        assert isinstance(result, Tensor)
        return result

    return entry


def mean(call: NodeCall) -> Tensor:
    """Mean: of all operands, broadcast."""
    tensors = [call.tensor(i) for i in range(len(call.inputs))]
    return functools.reduce(torch.add, tensors) / len(tensors)


def divide(call: NodeCall) -> Any:
    """Div: whole numbers are divided towards zero."""
    a, b = call.tensor(0), call.operand(1)
    if a.is_floating_point():
        return a / b
    return torch.div(a, b, rounding_mode="trunc")


def modulo(call: NodeCall) -> Tensor:
    """Mod: with the divisor's sign, or with `fmod` the dividend's."""
    function = torch.fmod if call.get("fmod", 0) else torch.remainder
    return function(call.tensor(0), call.operand(1))


def power(call: NodeCall) -> Tensor:
    """Pow: out = x ** y, of x's type."""
    x, y = call.tensor(0), call.operand(1)
    return torch.pow(x, y).to(x.dtype)


def clip(call: NodeCall) -> Tensor:
    """Clip: between the bounds that are given; one may be a tensor."""
    x, bounds = call.x, [call.raw(1), call.raw(2)]
    if all(bound is None or isinstance(bound, Numbers) for bound in bounds):
        low, high = (None if b is None else b.listed[0] for b in bounds)
        low = None if low is not None and low <= torch.finfo(torch.float32).min else low
        high = None if high is not None and high >= torch.finfo(torch.float32).max else high
        if low == 0 and high == 6:
            return F.relu6(x)
        return x if low is None and high is None else torch.clamp(x, low, high)
    return torch.clamp(x, call.optional(1), call.optional(2))


def where(call: NodeCall) -> Tensor:
    """Where: a where the condition holds, else b."""
    a, b = call.operand(1), call.operand(2)
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        a = call.tensor(1)
    return torch.where(call.tensor(0), a, b)


def cast(call: NodeCall) -> Tensor:
    """Cast: to the type that is named; every float is computed as float32."""
    kind = call.get("to")
    if kind not in TYPES:
        raise call.refusal("makes a type that is not read")
    return _to(call.x, TYPES[kind])


def cast_like(call: NodeCall) -> Tensor:
    """CastLike: to the type of the second operand."""
    return _to(call.x, call.tensor(1).dtype)


def _to(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x if x.dtype == dtype else x.to(dtype)


def identity(call: NodeCall) -> Any:
    """Identity: the value itself."""
    return call.raw(0)


def dropout(call: NodeCall) -> Any:
    """Dropout: nothing but in training; the mask is all true."""
    x = call.x
    ratio = call.number(1, 0.5)
    out = F.dropout(x, float(ratio), call.training)
    return (out, torch.ones_like(x, dtype=torch.bool)) if call.outputs > 1 else out


def hard_sigmoid(call: NodeCall) -> Tensor:
    """HardSigmoid: alpha * x + beta, between 0 and 1."""
    alpha, beta = call.get("alpha", 0.2), call.get("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-5) and beta == 0.5:
        return F.hardsigmoid(call.x)
    return torch.clamp(call.x * alpha + beta, 0.0, 1.0)


def selu(call: NodeCall) -> Any:
    """Selu: with its usual constants torch's own."""
    alpha, gamma = call.get("alpha", 1.6732632423543772), call.get("gamma", 1.0507009873554805)
    if math.isclose(alpha, 1.6732632, rel_tol=1e-5) and math.isclose(gamma, 1.0507, rel_tol=1e-4):
        return F.selu(call.x)
    return gamma * F.elu(call.x, alpha)


def celu(call: NodeCall) -> Tensor:
    """Celu: max(0, x) + min(0, alpha * (exp(x / alpha) - 1))."""
    return F.celu(call.x, call.get("alpha", 1.0))


def thresholded(call: NodeCall) -> Tensor:
    """ThresholdedRelu: x where it is above alpha, else 0."""
    return F.threshold(call.x, call.get("alpha", 1.0), 0.0)


def shrink(call: NodeCall) -> Tensor:
    """Shrink: values near 0 become 0, others move towards it by the bias."""
    x, limit, bias = call.x, call.get("lambd", 0.5), call.get("bias", 0.0)
    zero = torch.zeros_like(x)
    return torch.where(x < -limit, x + bias, torch.where(x > limit, x - bias, zero))


def gelu(call: NodeCall) -> Tensor:
    """Gelu: exact, or by tanh."""
    return F.gelu(call.x, approximate=call.get("approximate", "none"))


def swish(call: NodeCall) -> Tensor:
    """Swish: x * sigmoid(alpha * x)."""
    x, alpha = call.x, call.get("alpha", 1.0)
    return F.silu(x) if alpha == 1 else x * torch.sigmoid(alpha * x)


def prelu(call: NodeCall) -> Tensor:
    """PRelu: x where it is positive, else slope * x; slopes per channel are torch's own."""
    x, slope = call.x, call.tensor(1)
    per_channel = slope.dim() == x.dim() - 1 and slope.shape[0] == slope.numel()
    if slope.numel() == 1 or (per_channel and x.dim() > 1 and slope.numel() == x.shape[1]):
        return F.prelu(x, slope.reshape(-1))
    return torch.where(x >= 0, x, slope * x)


def is_infinite(call: NodeCall) -> Tensor:
    """IsInf: of either sign, or of one."""
    x = call.x
    positive, negative = call.get("detect_positive", 1), call.get("detect_negative", 1)
    if positive and negative:
        return torch.isinf(x)
    return torch.isposinf(x) if positive else torch.isneginf(x)


def shift(call: NodeCall) -> Tensor:
    """BitShift: to the left or right."""
    a, b = call.tensor(0), call.tensor(1)
    return a << b if call.get("direction") == "LEFT" else a >> b


def leaky(call: NodeCall) -> Tensor:
    """LeakyRelu: x where it is positive, else alpha * x."""
    return F.leaky_relu(call.x, call.get("alpha", 0.01))


def elu(call: NodeCall) -> Tensor:
    """Elu: x where it is positive, else alpha * (exp(x) - 1)."""
    return F.elu(call.x, call.get("alpha", 1.0))


ENTRIES: dict[str, Entry] = {
    "Abs": unary(torch.abs),
    "Acos": unary(torch.acos),
    "Acosh": unary(torch.acosh),
    "Asin": unary(torch.asin),
    "Asinh": unary(torch.asinh),
    "Atan": unary(torch.atan),
    "Atanh": unary(torch.atanh),
    "BitwiseNot": unary(torch.bitwise_not),
    "Ceil": unary(torch.ceil),
    "Cos": unary(torch.cos),
    "Cosh": unary(torch.cosh),
    "Erf": unary(torch.erf),
    "Exp": unary(torch.exp),
    "Floor": unary(torch.floor),
    "HardSwish": unary(F.hardswish),
    "IsNaN": unary(torch.isnan),
    "Log": unary(torch.log),
    "Mish": unary(F.mish),
    "Neg": unary(torch.neg),
    "Not": unary(torch.logical_not),
    "Reciprocal": unary(torch.reciprocal),
    "Relu": unary(F.relu),
    "Round": unary(torch.round),
    "Sigmoid": unary(torch.sigmoid),
    "Sign": unary(torch.sign),
    "Sin": unary(torch.sin),
    "Sinh": unary(torch.sinh),
    "Softplus": unary(F.softplus),
    "Softsign": unary(F.softsign),
    "Sqrt": unary(torch.sqrt),
    "Tan": unary(torch.tan),
    "Tanh": unary(torch.tanh),
    "Add": arithmetic(lambda a, b: a + b),
    "And": logical(torch.logical_and),
    "BitwiseAnd": logical(torch.bitwise_and),
    "BitwiseOr": logical(torch.bitwise_or),
    "BitwiseXor": logical(torch.bitwise_xor),
    "Equal": arithmetic(lambda a, b: a == b),
    "Greater": arithmetic(lambda a, b: a > b),
    "GreaterOrEqual": arithmetic(lambda a, b: a >= b),
    "Less": arithmetic(lambda a, b: a < b),
    "LessOrEqual": arithmetic(lambda a, b: a <= b),
    "Mul": arithmetic(lambda a, b: a * b),
    "Or": logical(torch.logical_or),
    "Sub": arithmetic(lambda a, b: a - b),
    "Xor": logical(torch.logical_xor),
    "BitShift": shift,
    "Cast": cast,
    "CastLike": cast_like,
    "Celu": celu,
    "Clip": clip,
    "Div": divide,
    "Dropout": dropout,
    "Elu": elu,
    "Gelu": gelu,
    "com.microsoft.Gelu": gelu,
    "HardSigmoid": hard_sigmoid,
    "Identity": identity,
    "IsInf": is_infinite,
    "LeakyRelu": leaky,
    "Mean": mean,
    "Mod": modulo,
    "PRelu": prelu,
    "Pow": power,
    "Selu": selu,
    "Shrink": shrink,
    "Swish": swish,
    "ThresholdedRelu": thresholded,
    "Where": where,
    **table(variadic(torch.add), "Sum"),
    **table(variadic(torch.maximum), "Max"),
    **table(variadic(torch.minimum), "Min"),
}
