"""Handle lifted programs, where parameters, buffers and constants are inputs.

`torch.export` makes such programs; these inputs stand beside those of the network's call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.export import ExportedProgram

from compressor.errors import CompressorError


def stored_tensors(program: ExportedProgram) -> dict[str, Any]:
    """Return the program's parameters, buffers and constants (any objects) by name."""
    return {**program.state_dict, **program.constants}


def stored_names(program: ExportedProgram) -> dict[str, str]:
    """Map placeholders to the names of their stored tensors; the call's inputs have none."""
    return {
        spec.arg.name: spec.target
        for spec in program.graph_signature.input_specs
        if spec.target is not None
    }


def fill_placeholders(
    program: ExportedProgram, leaves: Sequence[Any], stored: Mapping[str, Any] | None = None
) -> list[Any]:
    """Return the values of a program's placeholders, in their order.

    Args:
        program: The lifted program.
        leaves: The inputs of the call, flattened.
        stored: Tensors by name that stand in for the program's own.

    Raises:
        CompressorError: There are more or fewer inputs than the traced call has.
    """
    own = stored_tensors(program) if stored is None else stored
    specs = program.graph_signature.input_specs
    wanted = sum(spec.target is None for spec in specs)
    if len(leaves) != wanted:
        raise CompressorError(
            f"the samples have {len(leaves)} inputs, the traced call has {wanted}",
            where="--data",
            consequence="the activations cannot be measured",
            next_step="give samples with all inputs of the example, or a criterion of the weights",
        )
    given = iter(leaves)
    return [next(given) if spec.target is None else own[spec.target] for spec in specs]
