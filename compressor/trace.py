"""Capture: the model's computation as a `torch.export` program, on a copy, on the CPU."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from compressor.errors import CompressorError
from compressor.records import ExampleInputs, Trace


def trace(module: nn.Module, examples: ExampleInputs) -> Trace:
    """Export a detached copy of `module` in eval mode.

    Inputs that share dimension 0 are repeated to a batch of at least two, since a batch of one
    silently becomes static; a dynamic batch is tried first, then a static one, which is noted.

    Raises:
        CompressorError: `torch.export` cannot capture the model.
    """
    copied = detached_copy(module)
    batched = _with_batch(examples)
    inputs = examples if batched is None else batched
    notes: list[str] = []
    attempts = [None] if batched is None else [torch.export.Dim("batch"), None]
    failure: Exception | None = None
    for batch in attempts:
        try:
            program = _export(copied, inputs, batch)
        except Exception as error:
            failure = error
            if batch is not None:
                notes.append(f"the batch is static: {_first_line(error)}")
            continue
        symbol = _batch_symbol(program) if batch is not None else None
        count = _leading_size(inputs) or 1
        return Trace(program, copied, inputs, symbol, count, tuple(notes))
    assert failure is not None
    raise CompressorError(
        "torch.export cannot capture this model",
        where=_first_line(failure),
        consequence="its channels cannot be analysed",
        next_step="remove branches on tensor values from forward, or pass other inputs (--input)",
    ) from failure


def detached_copy(module: nn.Module) -> nn.Module:
    """A copy on the CPU, in eval mode, without gradients; the original is left alone."""
    try:
        copied = copy.deepcopy(module).to("cpu")
    except Exception as error:
        raise CompressorError(
            "the model cannot be copied",
            where=f"{type(module).__name__}: {_first_line(error)}",
            consequence="it is not touched, and so not compressed",
            next_step="make it deep-copyable (no locks, files or non-leaf tensors as attributes)",
        ) from error
    if not isinstance(copied, torch.fx.GraphModule):
        copied.eval()
    for parameter in copied.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    return copied


def _export(module: nn.Module, inputs: ExampleInputs, batch: Any) -> torch.export.ExportedProgram:
    leading = {0: batch} if batch is not None else None

    def shape_of(leaf: Any) -> Any:
        return leading if isinstance(leaf, torch.Tensor) and leaf.dim() else None

    shapes = pytree.tree_map(shape_of, _by_name(module, inputs)) if leading else None
    with quiet_capture():
        return torch.export.export(
            module, inputs.args, dict(inputs.kwargs), dynamic_shapes=shapes, strict=False
        )


def _by_name(module: nn.Module, inputs: ExampleInputs) -> Any:
    """Inputs as `dynamic_shapes` wants them: by the names in forward's signature, or in order."""
    if not inputs.kwargs:
        return inputs.args
    bound = inspect.signature(module.forward).bind(*inputs.args, **inputs.kwargs)
    return dict(bound.arguments)


@contextmanager
def quiet_capture() -> Iterator[None]:
    """No gradients, no fused fast paths (they hide the layers), no warnings from the exporter."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _tensors(inputs: ExampleInputs) -> list[torch.Tensor]:
    return [
        leaf
        for leaf in pytree.tree_leaves((inputs.args, dict(inputs.kwargs)))
        if isinstance(leaf, torch.Tensor)
    ]


def _leading_size(inputs: ExampleInputs) -> int | None:
    """The size of dimension 0, where all tensor inputs share it."""
    sizes = {tensor.shape[0] if tensor.dim() else None for tensor in _tensors(inputs)}
    return sizes.pop() if len(sizes) == 1 else None


def _with_batch(inputs: ExampleInputs) -> ExampleInputs | None:
    """The inputs with a batch of two or more, or None where they share no dimension 0."""
    size = _leading_size(inputs)
    if not size:
        return None
    if size >= 2:
        return inputs

    def repeat(leaf: Any) -> Any:
        return torch.cat([leaf, leaf]) if isinstance(leaf, torch.Tensor) else leaf

    args, kwargs = pytree.tree_map(repeat, (inputs.args, dict(inputs.kwargs)))
    return ExampleInputs(args, kwargs, inputs.origin)


def _batch_symbol(program: torch.export.ExportedProgram) -> str | None:
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if node.op == "placeholder" and isinstance(value, torch.Tensor):
            for size in value.shape[:1]:
                if isinstance(size, torch.SymInt):
                    return str(size)
    return None


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
