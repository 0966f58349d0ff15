"""Count a program's multiply-adds while it runs: the equations, asked with the sizes of a run.

The analysis knows a free size only as a symbol. Where data decide a size, its value is that of the
run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Interpreter, Node
from torch.utils import _pytree as pytree

from compressor.graph.asking import call_of
from compressor.graph.counting import uncountable
from compressor.graph.programs.lifting import fill_placeholders, stored_tensors
from compressor.graph.programs.nodes import operator_of
from compressor.graph.rules import RULES
from compressor.graph.rules.call import TensorShape, fresh
from compressor.source_lines import owner_of


def macs_of_program(
    program: ExportedProgram, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, int]:
    """Run a program on inputs, and count its multiply-adds by the module that asks for them.

    Operators without a rule, and functions that are handed to an operator (a condition's branches),
    count nothing. The program is not changed: what it writes to its buffers goes to copies.

    Returns:
        Path of a module -> multiply-adds of the whole batch; "" is the network itself.

    Raises:
        CompressorError: The program does not run on these inputs.
    """
    named = dict(kwargs)
    if program.example_inputs is not None:
        named = {name: named[name] for name in program.example_inputs[1]}
    stored = stored_tensors(program)
    stored |= {name: stored[name].clone() for name in program.graph_signature.buffers}
    counting = _Counting(program.graph_module)
    leaves = fill_placeholders(program, pytree.tree_leaves((args, named)), stored)
    try:
        with torch.no_grad():
            counting.run(*leaves, enable_io_processing=False)
    except Exception as error:  # whatever the network's operators raise
        raise uncountable(error) from error
    return counting.macs


class _Counting(Interpreter):
    """An interpreter that asks the rule of every operator for the multiply-adds of its call."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__(module)
        self.macs: dict[str, int] = {}

    def run_node(self, n: Node) -> Any:
        rule = RULES.get(operator_of(n)) if n.op == "call_function" else None
        if rule is None:
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        call = call_of(n, args, kwargs, _as_seen)  # before the operator can write to them
        result = super().run_node(n)
        leaves = pytree.tree_leaves(result)
        sizes = tuple(tuple(leaf.shape) for leaf in leaves if isinstance(leaf, Tensor))
        products = rule(replace(call, outputs=sizes)).macs
        count = sum(prod(dim.size for dim in product) for product in products)
        if count:
            owner = owner_of(n)
            self.macs[owner] = self.macs.get(owner, 0) + count
        return result


def _as_seen(value: Any) -> Any:
    """Return a value as a rule sees it: tensors by their dimensions, lists as tuples."""
    if isinstance(value, Tensor):
        return TensorShape(fresh(value.shape))
    return tuple(map(_as_seen, value)) if isinstance(value, list | tuple) else value
