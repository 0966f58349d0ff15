"""Build a program anew from another one, with other operators or tensors."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature
from torch.fx import GraphModule


def rebuild(
    program: ExportedProgram,
    *,
    module: GraphModule | None = None,
    signature: ExportGraphSignature | None = None,
    state: Mapping[str, Any] | None = None,
    constants: Mapping[str, Any] | None = None,
    ranges: Mapping[Any, Any] | None = None,
) -> ExportedProgram:
    """Return a program like another one, but for what is given; the other one is not changed.

    Args:
        program: The other program; tensors that are not given are shared with it.
        module: The operators.
        signature: What the graph's inputs and outputs are.
        state: Parameters and persistent buffers by name.
        constants: Other buffers, and tensors that live in the code, by name.
        ranges: The range of each symbolic size.
    """
    module = program.graph_module if module is None else module
    signature = copy.deepcopy(program.graph_signature) if signature is None else signature
    return ExportedProgram(
        root=module,
        graph=module.graph,
        graph_signature=signature,
        state_dict=dict(program.state_dict if state is None else state),
        range_constraints=dict(program.range_constraints if ranges is None else ranges),
        module_call_graph=copy.deepcopy(program.module_call_graph),
        example_inputs=program.example_inputs,
        constants=dict(program.constants if constants is None else constants),
        verifiers=list(program.verifiers),
    )
