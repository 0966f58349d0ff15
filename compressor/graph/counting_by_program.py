"""Multiply-adds of a captured program, operator by operator, for code that no tracer runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from compressor.graph.counting_by_rule import macs_said
from compressor.graph.programs.nodes import schema_names
from compressor.graph.rules import RULES, Call
from compressor.graph.rules.call import TensorShape, fresh
from compressor.source_lines import owner_of


def macs_of_program(
    program: ExportedProgram, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, int]:
    """Multiply-adds of one run of the program on these inputs, by the path of the module that asks
    for them. Operators without a rule, and functions that are handed to an operator (a condition's
    branches), count nothing.

    Raises: whatever the program's operators raise on such inputs.
    """
    named = dict(kwargs)
    if program.example_inputs is not None:
        named = {name: named[name] for name in program.example_inputs[1]}
    counting = _Counting(program.module(check_guards=False))
    with torch.no_grad():
        counting.run(*pytree.tree_leaves((args, named)), enable_io_processing=False)
    return counting.macs


class _Counting(torch.fx.Interpreter):
    """Runs a graph and asks the rule of every operator that it comes to."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.macs: dict[str, int] = {}

    def run_node(self, n: torch.fx.Node) -> Any:
        name = str(n.target).removeprefix("aten.")
        if not isinstance(n.target, torch._ops.OpOverload) or name not in RULES:
            return super().run_node(n)
        given, named = self.fetch_args_kwargs_from_env(n)
        defaults = {a.name: a.default_value for a in n.target._schema.arguments}
        arguments = defaults | dict(zip(schema_names(n), given, strict=False)) | dict(named)
        seen = {name: _as_seen(value) for name, value in arguments.items()}
        result = super().run_node(n)
        tensors = [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
        count = macs_said(Call(name, seen, tuple(tuple(t.shape) for t in tensors)))
        if count:
            owner = owner_of(n)
            self.macs[owner] = self.macs.get(owner, 0) + count
        return result


def _as_seen(value: Any) -> Any:
    """A value as a rule sees it: tensors by their dimensions, lists as tuples."""
    if isinstance(value, Tensor):
        return TensorShape(fresh(value.shape))
    return tuple(map(_as_seen, value)) if isinstance(value, list | tuple) else value
