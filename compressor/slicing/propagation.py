"""Compute what each node of a sliced program yields, by running it on tensors without data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch._dispatch.python import enable_python_dispatcher
from torch._guards import detect_fake_mode
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule, Interpreter, Node
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.utils import _pytree as pytree

from compressor.causes import cause_of
from compressor.errors import CompressorError
from compressor.graph.programs.lstm_states import correct_lstm_states
from compressor.graph.programs.nodes import argument
from compressor.on_demand import OnDemand


def propagate(module: GraphModule, program: ExportedProgram, tensors: Mapping[str, Tensor]) -> None:
    """Write what each node yields (a fake tensor) into the nodes of `module`, in place.

    Args:
        module: The sliced graph.
        program: The program that the graph is a slice of, with the same placeholders.
        tensors: The sliced tensors, by the name of their placeholder.

    Raises:
        CompressorError: An operator does not take what it gets.
    """
    values = [node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"]
    mode = detect_fake_mode(values)
    assert mode is not None
    arguments = []
    for node in module.graph.nodes:
        if node.op == "placeholder":
            real = tensors.get(node.name)
            real = real.hollow() if isinstance(real, OnDemand) else real
            fake = (
                node.meta.get("val") if real is None else mode.from_tensor(real, static_shapes=True)
            )
            arguments.append(fake)
    # the exporter's own dispatch: compiled composite operators would fix the batch to its hint
    pending = _without_pending_symbols(mode)
    with enable_python_dispatcher(), mode, torch.no_grad(), pending, correct_lstm_states():
        _Propagation(module).run(*arguments, enable_io_processing=False)


def rename_ranges(graph: Graph, ranges: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return the ranges of a program's symbols under the symbols of a propagated graph.

    Numbers that data decide have other symbols there; the nodes' bindings are changed to those, in
    place. Without its range, a program's file takes such a number for any, and cannot be read.
    """
    renamed: dict[Any, Any] = {}
    for node in graph.nodes:
        bindings = node.meta.get("unbacked_bindings") or {}
        symbols = {
            symbol: _find_symbol(node.meta["val"], path) for symbol, path in bindings.items()
        }
        renamed |= {old: new for old, new in symbols.items() if new is not None}
        if bindings:
            node.meta["unbacked_bindings"] = {
                symbols[symbol] or symbol: path for symbol, path in bindings.items()
            }
    return {renamed.get(symbol, symbol): limits for symbol, limits in ranges.items()}


def _find_symbol(value: Any, path: tuple[Any, ...]) -> Any:
    """Return the symbol at a place in what a node yields; None where there is no single one.

    A place is a size of a tensor, or an item of a list.
    """
    try:
        expression = pytree.key_get(value, path).node.expr
    except (AttributeError, IndexError, KeyError, TypeError):
        return None
    return expression if expression.is_symbol else None


def _without_pending_symbols(mode: FakeTensorMode) -> AbstractContextManager[None]:
    """Keep the program's symbols from waiting for new ones inside the block.

    Numbers that data decide become new symbols with every run. The environment of the program's
    symbols must not wait for those to appear in a graph that it is tracing: the next one who traces
    within it (a decomposition for ONNX) would be told that they are missing.
    """
    environment = mode.shape_env
    return nullcontext() if environment is None else environment.ignore_fresh_unbacked_symbols()


class _Propagation(Interpreter):
    """Runs the graph on fake tensors, and stores in each node what it yields."""

    def run_node(self, node: Node) -> Any:
        try:
            result = self._known(node)
            if result is None:
                result = super().run_node(node)
        except Exception as error:
            cause = cause_of(error)
            raise CompressorError(
                f"the sliced program does not fit together at {node.target}"
                + (f": {cause.what}" if cause else ""),
                where=f"{node.name}: {str(error).splitlines()[0]}",
                consequence="nothing is returned, since the result would be wrong",
                next_step=cause.next_step
                if cause
                else "protect the layer (--protect) and please report it with its code",
            ) from error
        if node.op != "output":
            node.meta["val"] = result
        node.meta.pop("tensor_meta", None)
        return result

    def _known(self, node: Node) -> Any:
        """Return what the node yields where that is known without running it, else None."""
        # running operators on symbolic batch sizes takes tens of milliseconds each
        before = node.meta.get("val")
        if node.op == "call_function" and isinstance(before, bool | int | float):
            return before  # a number is the traced branch's
        if not isinstance(node.target, OpOverload) or not isinstance(before, Tensor):
            return None
        if free_unbacked_symbols(before):
            return None  # sizes that data decide
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        is_like_first = _is_unary(node.target, tensors) or _is_fixed_norm(node, tensors)
        if not is_like_first or not tensors[0].is_contiguous():
            return None
        return torch.empty_like(tensors[0], dtype=before.dtype)


def _is_unary(target: OpOverload, tensors: Sequence[Tensor]) -> bool:
    """Return whether an operator is pointwise on one tensor, and keeps its layout."""
    is_copy = target is torch.ops.aten.clone.default
    return torch.Tag.pointwise in target.tags and len(tensors) == 1 and not is_copy


def _is_fixed_norm(node: Node, tensors: Sequence[Tensor]) -> bool:
    """Return whether a node is a batch norm on running statistics that fit its channels."""
    if node.target is not torch.ops.aten.batch_norm.default or argument(node, "training"):
        return False
    x, *vectors = tensors
    return all(vector.shape == (x.shape[1],) for vector in vectors)
