"""Replace layers whose own forward computes the weight that acts.

Examples are weight standardisation and sums with low-rank matrices. Such a layer is recognised by
running it: a convolution or linear layer of an own class hands to the operator a weight that is
none of its parameters and does not depend on the input. It becomes the layer of torch.nn that it
is derived from, holding that weight, if that computes the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

OPERATORS = {
    *(torch.conv1d, torch.conv2d, torch.conv3d, functional.linear),
    *(torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d),
}
SIDES = (9, 12)
"""Positions beyond a kernel's reach of the two inputs that a layer is run on. Paddings that
depend on the size show on one of them."""


class PaddedToSize(nn.Module):
    """A convolution whose padding is TensorFlow's "same", computed from the input's size."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve [batch, channels, *sizes] to ceil(size / stride) positions per dimension.

        An odd padding has its extra position at the end.
        """
        padding: list[int] = []
        layer: Any = self
        for size, kernel, stride, dilation in zip(
            x.shape[2:], layer.kernel_size, layer.stride, layer.dilation, strict=True
        ):
            total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
            padding = [total // 2, total - total // 2, *padding]
        padded = functional.pad(x, padding)
        output: Tensor = layer._conv_forward(padded, layer.weight, layer.bias)
        return output


class Conv1dPaddedToSize(PaddedToSize, nn.Conv1d):
    """A convolution in one dimension, padded to the input's size as TensorFlow's "same" is."""


class Conv2dPaddedToSize(PaddedToSize, nn.Conv2d):
    """A convolution in two dimensions, padded to the input's size as TensorFlow's "same" is."""


class Conv3dPaddedToSize(PaddedToSize, nn.Conv3d):
    """A convolution in three dimensions, padded to the input's size as TensorFlow's "same" is."""


PADDED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: Conv1dPaddedToSize,
    nn.Conv2d: Conv2dPaddedToSize,
    nn.Conv3d: Conv3dPaddedToSize,
}


class _Operands(TorchFunctionMode):
    """A mode that notes the weight and bias of every convolution and linear map that is called."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Any, Any]] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in OPERATORS:
            given = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
            self.seen.append((given.get("weight"), given.get("bias")))
        return func(*args, **kwargs)


def plain_layer(layer: nn.Module) -> bool:
    """Turn a layer whose forward computes its weight into its torch.nn base class, in place.

    Args:
        layer: A layer in eval mode; it is unchanged if it is of another kind.

    Returns:
        Whether the layer was turned.
    """
    base = _base_of(layer)
    if base is None:
        return False
    with torch.no_grad(), torch.random.fork_rng(devices=()):
        inputs = [_input_for(layer, beyond) for beyond in SIDES]
        try:
            runs = [_run(layer, given) for given in inputs]
        except Exception:  # its forward takes something else
            return False
        weight = _find_acting(layer, [operands for _, operands in runs])
        if weight is None:
            return False
        outputs = [output for output, _ in runs]
        return any(_becomes(layer, kind, weight, inputs, outputs) for kind in _kinds(base))


def may_compute(layer: nn.Module) -> bool:
    """Return whether a layer is of an own class that may compute its weight; it is not run."""
    return _base_of(layer) is not None


def _base_of(layer: nn.Module) -> type[nn.Module] | None:
    """Return the torch.nn class behind a layer's own class, if that changes the forward.

    None for containers, other kinds of layers, and layers with torch.nn's own forward.
    """
    if not isinstance(layer, _ConvNd | nn.Linear) or list(layer.children()):
        return None
    own: type[nn.Module] = type(layer)
    base = next(kind for kind in own.__mro__ if kind.__module__.startswith("torch.nn."))
    methods = ("forward", "_conv_forward")
    same = all(getattr(own, name, None) is getattr(base, name, None) for name in methods)
    return None if same else base


def _kinds(base: type[nn.Module]) -> list[type[nn.Module]]:
    return [base, *([PADDED[base]] if base in PADDED else [])]


def _input_for(layer: Any, beyond: int) -> Tensor:
    like = layer.weight
    if isinstance(layer, nn.Linear):
        return torch.randn(2, layer.in_features, dtype=like.dtype)
    reach = [(k - 1) * d for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
    return torch.randn(2, layer.in_channels, *(side + beyond for side in reach), dtype=like.dtype)


def _run(layer: nn.Module, given: Tensor) -> tuple[Tensor, list[tuple[Any, Any]]]:
    with _Operands() as operands:
        return layer(given), operands.seen


def _find_acting(layer: Any, runs: list[list[tuple[Any, Any]]]) -> Tensor | None:
    """Return the weight that acts, if exactly one operator takes a weight that is computed.

    Args:
        layer: The layer that was run.
        runs: For each of two different inputs, the (weight, bias) pairs of its operators; the
            weight must not depend on the input.
    """
    if any(len(operands) != 1 for operands in runs):
        return None
    (weight, bias), (again, _) = runs[0][0], runs[1][0]
    if weight is again or bias is not layer.bias:
        return None  # a tensor that is stored, or a bias that is computed too
    if weight.shape != layer.weight.shape or not torch.equal(weight, again):
        return None
    own = {tensor.untyped_storage().data_ptr() for tensor in layer.parameters()}
    return None if weight.untyped_storage().data_ptr() in own else weight.detach().clone()


def _becomes(
    layer: nn.Module,
    kind: type[nn.Module],
    weight: Tensor,
    inputs: list[Tensor],
    outputs: list[Tensor],
) -> bool:
    """Turn the layer into one of this kind, in place, or return False if outputs differ."""
    before, parameters, buffers = type(layer), dict(layer._parameters), dict(layer._buffers)
    sources = [p for name, p in parameters.items() if name != "bias" and p is not None]
    learns = any(source.requires_grad for source in sources)
    layer.__class__ = kind
    layer._parameters.clear()
    layer._buffers.clear()
    layer._parameters.update(weight=nn.Parameter(weight, learns), bias=parameters["bias"])
    if all(_agree(layer, *pair) for pair in zip(inputs, outputs, strict=True)):
        return True
    layer.__class__ = before
    layer._parameters.update(parameters)
    layer._buffers.update(buffers)
    return False


def _agree(layer: nn.Module, given: Tensor, expected: Tensor) -> bool:
    output: Tensor = layer(given)
    return output.shape == expected.shape and torch.allclose(output, expected, rtol=1e-3, atol=1e-5)
