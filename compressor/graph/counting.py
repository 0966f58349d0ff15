"""Count a running network's parameters, and its multiply-adds by formulas that know no equations.

The equations count what budgets and reports say. This second count checks them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from math import isqrt, prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from compressor.causes import cause_of, first_line
from compressor.errors import CompressorError
from compressor.graph.programs.attention_path import unfuse_attention
from compressor.graph.rules.linear import contractions, einsum_letters
from compressor.graph.trace.hollow import hollow
from compressor.on_demand import memory_of

Values = Sequence[Any]
"""Inputs or outputs of a traced operator (`torch._C.Value`)."""


def _shape(value: Any) -> list[int]:
    return value.type().sizes() or []


def _matrix_product(left: int) -> Callable[[Values, Values], int]:
    """Return the formula of a matrix product whose first factor is input number `left`.

    Every element of the output sums over that input's last dimension.
    """
    return lambda inputs, outputs: prod(_shape(outputs[0])) * _shape(inputs[left])[-1]


def _summed_products(inputs: Values, outputs: Values) -> int:
    """Count addbmm: the products of all pairs of matrices, [b, m, k] and [b, k, n]."""
    return prod(_shape(inputs[1])) * _shape(inputs[2])[-1]


def _convolution(inputs: Values, outputs: Values) -> int:
    """Count a convolution: each output (transposed: input) position meets each weight once."""
    transposed = bool(inputs[6].toIValue())
    data = _shape(inputs[0] if transposed else outputs[0])
    return data[0] * prod(data[2:]) * prod(_shape(inputs[1]))


def _same_convolution(inputs: Values, outputs: Values) -> int:
    data = _shape(outputs[0])
    return data[0] * prod(data[2:]) * prod(_shape(inputs[1]))


def _attention(inputs: Values, outputs: Values) -> int:
    """Count q·k and attention·v: per query and key, the key's width plus the value's width."""
    (*queries, value_width), key_shape = _shape(outputs[0]), _shape(inputs[1])
    keys, key_width = key_shape[-2:]
    return prod(queries) * keys * (key_width + value_width)


def _recurrent(inputs: Values, outputs: Values) -> int:
    """Count a recurrent layer: every weight matrix works once per step and sample."""
    steps_and_samples = prod(_shape(inputs[0])[:-1])
    lists = [v for v in inputs if v.node().kind() == "prim::ListConstruct"]
    shapes = [_shape(w) for v in lists for w in v.node().inputs() if w.isCompleteTensor()]
    return steps_and_samples * sum(prod(shape) for shape in shapes if len(shape) == 2)


def _cell(inputs: Values, outputs: Values) -> int:
    """Count a recurrent cell: both weight matrices work once per sample."""
    samples = prod(_shape(inputs[0])[:-1])
    shapes = [_shape(v) for v in inputs[1:] if v.isCompleteTensor()]
    states = len(outputs) if inputs[1].isCompleteTensor() else 0
    return samples * sum(prod(shape) for shape in shapes[states:][:2])


def _bilinear(inputs: Values, outputs: Values) -> int:
    """Count a bilinear layer: every output sums over all pairs of the two inputs' channels."""
    return prod(_shape(outputs[0])) * prod(_shape(inputs[2])[1:])


def _tensordot(inputs: Values, outputs: Values) -> int:
    """Count a tensordot: with a = free_a·k and b = free_b·k, free_a·free_b·k is √(a·b·out)."""
    return isqrt(prod(prod(_shape(v)) for v in (*inputs[:2], outputs[0])))


def _einsum(inputs: Values, outputs: Values) -> int:
    """Count an einsum pair by pair from the left (`contractions`), as torch computes it."""
    operands = [_shape(v) for v in inputs[1].node().inputs()]
    terms, result = einsum_letters(inputs[0].toIValue(), [len(shape) for shape in operands])
    size: dict[str, int] = {}
    for term, shape in zip(terms, operands, strict=True):
        for letter, length in zip(term, shape, strict=True):
            size[letter] = max(length, size.get(letter, 1))
    joined = contractions(terms, result)
    return sum(prod(size[letter] for letter in letters) for letters in joined)


def _atens(formula: Callable[[Values, Values], int], names: str) -> dict[str, Any]:
    return {f"aten::{name}": formula for name in names.split()}


MACS: dict[str, Callable[[Values, Values], int]] = {
    **_atens(_matrix_product(0), "linear matmul linalg_matmul mm bmm mv dot vdot inner"),
    **_atens(_matrix_product(1), "addmm addmv baddbmm addmm_ baddbmm_"),
    **_atens(_summed_products, "addbmm"),
    **_atens(_tensordot, "tensordot"),
    **_atens(_einsum, "einsum"),
    **_atens(_bilinear, "bilinear"),
    **_atens(_convolution, "_convolution"),
    **_atens(_same_convolution, "_convolution_mode"),
    **_atens(_attention, "scaled_dot_product_attention"),
    **_atens(_recurrent, "lstm gru rnn_tanh rnn_relu"),
    **_atens(_cell, "lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell"),
    "torchvision::deform_conv2d": _same_convolution,
}
"""Operator as the tracer names it -> formula of its multiply-adds. Others (norms, pooling, a
user's own) count nothing."""

_CONVOLUTIONS = {f"aten::conv{way}{n}d" for way in ("", "_transpose") for n in (1, 2, 3)}
"""Operators that the tracer calls `_convolution`, or `_convolution_mode`."""


class _OnTensorsAlone(nn.Module):
    """A module that is called with tensors alone, as tracing needs; the rest is fixed.

    The counter sees the network's tensors and none of its layers, on which it would leave hooks.
    """

    def __init__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        super().__init__()
        for number, tensor in enumerate((*module.parameters(), *module.buffers())):
            self.register_buffer(str(number), tensor)
        self.call: Callable[..., Any] = lambda args, kwargs: module(*args, **kwargs)
        self.leaves, self.spec = pytree.tree_flatten((args, dict(kwargs)))
        self.tensors = tuple(leaf for leaf in self.leaves if isinstance(leaf, Tensor))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        given = iter(tensors)
        inputs = [next(given) if isinstance(leaf, Tensor) else leaf for leaf in self.leaves]
        with _Remembered() as computed:
            leaves = pytree.tree_leaves(self.call(*pytree.tree_unflatten(inputs, self.spec)))
        outputs = tuple(leaf for leaf in leaves if isinstance(leaf, Tensor)) or tensors
        return *outputs, *computed.traces


class _Remembered(TorchFunctionMode):
    """A mode that keeps a trace of every result, so that tracing does not leave out unused layers.

    A layer whose result is thrown away is computed all the same, and counts.
    """

    def __init__(self) -> None:
        super().__init__()
        self.traces: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.layout == torch.strided:
                self.traces.append(leaf.new_empty(0))
        return result


def has_formula(operator: str) -> bool:
    """Return whether `MACS` counts an operator, which is named as in the table of rules."""
    parts = operator.split(".")
    name = "::".join(parts[:2]) if len(parts) == 3 else f"aten::{parts[0]}"
    return name in MACS or name in _CONVOLUTIONS


def count_macs(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    reads_weights: bool = True,
) -> int:
    """Count the multiply-adds of `module(*args, **kwargs)` by fvcore, without rules or equations.

    The module is called in its present mode (eval or train). Convolutions, linear layers, matrix
    products, attention and recurrent layers are counted, whether or not an output depends on them;
    biases are not. The count is for the batch that the inputs have. The user's class and the module
    of an exported program count alike.

    Args:
        module: The network.
        args: Positional inputs.
        kwargs: Inputs by name.
        reads_weights: Whether parameters on demand are read; off where forward does not branch on
            values, so that any numbers will do.

    Raises:
        CompressorError: The module does not run on these inputs, or its code cannot be traced
            (operators that are given functions to run, sizes that data decide).
    """
    with hollow(module, with_values=reads_weights):
        return _count(_OnTensorsAlone(module, args, kwargs))


def _count(flat: _OnTensorsAlone) -> int:
    from fvcore.nn import FlopCountAnalysis

    with warnings.catch_warnings(), unfuse_attention(), torch.no_grad():
        warnings.simplefilter("ignore")
        analysis = FlopCountAnalysis(flat, flat.tensors)
        analysis.clear_op_handles().set_op_handle(**MACS)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analysis.tracer_warnings("none")
        try:
            return int(analysis.total())
        except (RuntimeError, ValueError, TypeError, AssertionError, LookupError) as error:
            raise uncountable(error) from error


def uncountable(error: Exception) -> CompressorError:
    """Build the error of a network that fails while it is counted, from what it raised."""
    cause = cause_of(error)
    return CompressorError(
        "the network's multiply-adds could not be counted" + (f": {cause.what}" if cause else ""),
        where=first_line(error),
        consequence="there is no number for its compute",
        next_step=cause.next_step
        if cause
        else "call the network with these inputs; if it runs there, report this",
    )


def count_params(module: nn.Module) -> int:
    """Count the elements of a module's parameters; a tied parameter counts once."""
    places = {
        (memory_of(p) or id(p), p.storage_offset(), p.shape, p.stride()): p
        for p in module.parameters()
    }
    return sum(p.numel() for p in places.values())
