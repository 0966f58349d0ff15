"""Find the dimension of inputs that counts samples, and repeat inputs along it."""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from compressor.records import ExampleInputs


def leading_size(inputs: ExampleInputs) -> int | None:
    """Return the size of dimension 0 if all tensor inputs share it, else None."""
    leaves = pytree.tree_leaves((inputs.args, dict(inputs.kwargs)))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    sizes = {tensor.shape[0] if tensor.dim() else None for tensor in tensors}
    return sizes.pop() if len(sizes) == 1 else None


def with_batch(inputs: ExampleInputs) -> ExampleInputs | None:
    """Return the inputs with a batch of two or more, or None where they share no dimension 0."""
    size = leading_size(inputs)
    if not size:
        return None
    if size >= 2:
        return inputs

    def repeat(leaf: Any) -> Any:
        return torch.cat([leaf, leaf]) if isinstance(leaf, torch.Tensor) else leaf

    args, kwargs = pytree.tree_map(repeat, (inputs.args, dict(inputs.kwargs)))
    return ExampleInputs(args, kwargs, inputs.origin)


def batch_symbol_of(program: ExportedProgram) -> str | None:
    """Return the symbol that is dimension 0 of an input; None where all are fixed."""
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if node.op == "placeholder" and isinstance(value, torch.Tensor):
            for size in value.shape[:1]:
                if isinstance(size, torch.SymInt):
                    return str(size)
    return None
