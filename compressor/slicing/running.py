"""Run a program as a module that can be trained: `train()` and `eval()` flip its literals."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from compressor.graph.programs.nodes import ASSERTION, argument, schema_names, set_argument
from compressor.graph.rules.facts import TRAINING
from compressor.on_demand import memory_of


class ProgramModule(GraphModule):
    """An exported program's graph with its parameters under their own names.

    `train()` switches batch norm, dropout and recurrent layers as it would in the original class;
    dropout inside fused attention stays off, because an evaluation trace does not record its rate.
    """

    def train(self, mode: bool = True) -> Self:
        """Switch the literals that the trace, taken in eval mode, has fixed; return the module."""
        set_training(self, mode)
        super().train(mode)
        return self


def set_training(module: GraphModule, mode: bool) -> None:
    """Switch the operators of a graph traced in eval mode to training or back, in place."""
    evaluating: dict[str, Any] = module.meta.setdefault("evaluating", {})
    for node in module.graph.nodes:
        name = _training_argument(node)
        if name is not None:
            usual = evaluating.setdefault(node.name, argument(node, name))
            set_argument(node, name, True if mode else usual)
    module.recompile()


def _training_argument(node: Node) -> str | None:
    """Return the name of the argument that tells training from evaluation; None without one."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return None
    return next((name for name in schema_names(node) if name in TRAINING), None)


def as_module(program: ExportedProgram) -> ProgramModule:
    """Return the program as a module in eval mode; its parameters are shared with the program.

    Those parameters learn that learn in the program's state.
    """
    unlifted = program.module(check_guards=False)
    for node in unlifted.graph.find_nodes(op="call_function", target=ASSERTION):
        unlifted.graph.erase_node(node)
    module = ProgramModule(unlifted, unlifted.graph)
    for name in program.graph_signature.non_persistent_buffers:
        owner, _, leaf = name.rpartition(".")
        module.get_submodule(owner)._non_persistent_buffers_set.add(leaf)
    _tie(module)
    return module.eval()


def _tie(module: GraphModule) -> None:
    """Tie parameters that are the same memory again, in place."""
    # a program that is read from a file has several parameters for one tensor
    first: dict[Any, torch.nn.Parameter] = {}
    for name, parameter in list(module.named_parameters(remove_duplicate=False)):
        memory = memory_of(parameter)
        place = (memory, parameter.dtype, parameter.shape, parameter.stride())
        same = first.setdefault((*place, parameter.storage_offset()), parameter)
        if memory and same is not parameter:
            owner, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(owner), leaf, same)
