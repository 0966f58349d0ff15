"""Count a network's multiply-adds and parameters."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isqrt, prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from compressor.causes import cause_of, first_line
from compressor.errors import CompressorError
from compressor.graph.counting_by_program import macs_of_program
from compressor.graph.counting_by_rule import by_rule
from compressor.graph.programs.attention_path import unfused_attention
from compressor.graph.rules.linear import contractions, einsum_letters

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


MACS: dict[str, Callable[[Values, Values], int]] = {
    "aten::_convolution": _convolution,
    "aten::_convolution_mode": _same_convolution,
    "aten::linear": _matrix_product(0),
    "aten::matmul": _matrix_product(0),
    "aten::linalg_matmul": _matrix_product(0),
    "aten::mm": _matrix_product(0),
    "aten::bmm": _matrix_product(0),
    "aten::mv": _matrix_product(0),
    "aten::dot": _matrix_product(0),
    "aten::vdot": _matrix_product(0),
    "aten::inner": _matrix_product(0),
    "aten::addmm": _matrix_product(1),
    "aten::addmv": _matrix_product(1),
    "aten::baddbmm": _matrix_product(1),
    "aten::addmm_": _matrix_product(1),
    "aten::baddbmm_": _matrix_product(1),
    "aten::addbmm": _summed_products,
    "aten::tensordot": _tensordot,
    "aten::einsum": _einsum,
    "aten::scaled_dot_product_attention": _attention,
    "aten::lstm": _recurrent,
    "aten::gru": _recurrent,
    "aten::rnn_tanh": _recurrent,
    "aten::rnn_relu": _recurrent,
    "aten::lstm_cell": _cell,
    "aten::gru_cell": _cell,
    "aten::rnn_tanh_cell": _cell,
    "aten::rnn_relu_cell": _cell,
    "aten::bilinear": _bilinear,
}
"""Formula of the multiply-adds of each traced operator. Others (norms, pooling, …) count
nothing."""


class _Flat(nn.Module):
    """A module that is called with tensors alone, as tracing needs; the rest is fixed."""

    def __init__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        super().__init__()
        self.module = module
        self.leaves, self.spec = pytree.tree_flatten((args, dict(kwargs)))
        self.tensors = tuple(leaf for leaf in self.leaves if isinstance(leaf, Tensor))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        given = iter(tensors)
        inputs = [next(given) if isinstance(leaf, Tensor) else leaf for leaf in self.leaves]
        args, kwargs = pytree.tree_unflatten(inputs, self.spec)
        with _Remembered() as computed:
            leaves = pytree.tree_leaves(self.module(*args, **kwargs))
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


def count_macs(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    program: ExportedProgram | None = None,
) -> int:
    """Count the multiply-adds of `module(*args, **kwargs)`, in its present mode (eval or train).

    Convolutions, linear layers, matrix products, attention and recurrent layers are counted
    (`MACS`, and operators outside ATen by their rules), whether or not an output depends on them;
    biases are not. The count is for the batch that the inputs have: give a batch of one for the
    number that is reported. The user's class and the module of an exported program count alike.
    Code that cannot be traced (operators that are given functions to run, cuts at values of the
    data) is counted on its `program`, where one is given.

    Raises:
        CompressorError: The module does not run on these inputs.
    """
    return sum(macs_by_layer(module, args, kwargs, program).values())


def macs_by_layer(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    program: ExportedProgram | None = None,
) -> dict[str, int]:
    """Count the multiply-adds of a call as `count_macs` does, by the submodule that computes them.

    Returns:
        Path of a submodule -> multiply-adds of its own, its children's left out; "" is `module`.

    Raises:
        CompressorError: The module does not run on these inputs.
    """
    try:
        return _traced(module, args, kwargs)
    except CompressorError:
        if program is None:
            raise
        try:
            return macs_of_program(program, args, kwargs)
        except Exception as error:  # whatever the network's operators raise
            raise _uncountable(error) from error


def _traced(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, int]:
    flat = _Flat(module, args, kwargs)
    with warnings.catch_warnings(), unfused_attention(), torch.no_grad():
        warnings.simplefilter("ignore")
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(flat, flat.tensors)
        spelled = _respelled(analysis)
        analysis.clear_op_handles().set_op_handle(**MACS, **by_rule())
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analysis.tracer_warnings("none")
        try:
            with _hooks_kept(flat):
                return {spelled(n): macs for n, macs in _own(analysis.by_module()).items()}
        except (RuntimeError, ValueError, TypeError, AssertionError, LookupError) as error:
            raise _uncountable(error) from error


def _uncountable(error: Exception) -> CompressorError:
    cause = cause_of(error)
    return CompressorError(
        "the network's multiply-adds could not be counted" + (f": {cause.what}" if cause else ""),
        where=first_line(error),
        consequence="there is no number for its compute",
        next_step=cause.next_step
        if cause
        else "call the network with these inputs; if it runs there, report this",
    )


_SLASH = "\ue000"
"""Stands for a slash in the names of modules, since the tracer takes a slash for the end of a
name."""


def _respelled(analysis: Any) -> Callable[[str], str]:
    """Replace slashes in an fvcore analysis's names, in place; return what restores a name."""
    analysis._named_modules = {
        name.replace("/", _SLASH): module for name, module in analysis._named_modules.items()
    }
    analysis._aliases = {
        key.replace("/", _SLASH) if isinstance(key, str) else key: name.replace("/", _SLASH)
        for key, name in analysis._aliases.items()
    }
    return lambda name: name.replace(_SLASH, "/")


def _own(counts: Mapping[str, float]) -> dict[str, int]:
    """Subtract from each module's count those of its children; modules without any are left out."""
    own = {name: int(count) for name, count in counts.items()}
    for name, count in counts.items():
        if name:
            own[name.rpartition(".")[0]] -= int(count)
    outermost = len("module.")
    return {name[outermost:]: count for name, count in own.items() if count}


@contextmanager
def _hooks_kept(module: nn.Module) -> Iterator[None]:
    """Restore the hooks of all submodules after the block.

    A trace that fails leaves fvcore's hooks behind, and the user's modules must not keep them.
    """
    tables = [t for m in module.modules() for t in (m._forward_hooks, m._forward_pre_hooks)]
    before = [dict(table) for table in tables]
    try:
        yield
    finally:
        for table, hooks in zip(tables, before, strict=True):
            table.clear()
            table.update(hooks)


def count_params(module: nn.Module) -> int:
    """Count the elements of a module's parameters; a tied parameter counts once."""
    places = {
        (p.untyped_storage().data_ptr() or id(p), p.storage_offset(), p.shape, p.stride()): p
        for p in module.parameters()
    }
    return sum(p.numel() for p in places.values())
