"""Is an ONNX file the network that it was written from?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.export import ExportedProgram

from compressor.calls import Call
from compressor.data import Data
from compressor.export import Case, export_onnx, user_inputs, verify_onnx
from compressor.planning.fitting import has_other_sizes
from compressor.planning.original import TemporaryFolder
from compressor.programs.redraw import drawable, redraw_
from compressor.records import ExampleInputs, Trace
from compressor.slicing import as_module, variants
from compressor.slicing.compare import TOLERANCE, is_live, outputs_of

LIVE = 10 * TOLERANCE


def verified(
    program: ExportedProgram,
    path: Path,
    traced: Trace,
    *,
    real: Call | None = None,
    opset: int | None = None,
) -> float:
    """Compare the ONNX file with the program on random inputs, of two batch sizes where the batch
    is free, and on real ones; under live weights as well where its own are dead.

    Args:
        traced: Has the example inputs.
        real: Inputs from the user's data.
        opset: The file's, should it have to be written again.

    Returns:
        The largest relative difference.

    Raises:
        CompressorError: ONNX Runtime computes something else, or the file does not run.
    """
    own = [ExampleInputs(real.args, real.kwargs)] if real is not None else []
    inputs = [*variants(traced), *own]
    cases = cases_of(program, inputs)
    if is_live([outputs for _, outputs in cases], LIVE):
        return verify_onnx(path, cases, TOLERANCE)
    alive = TemporaryFolder()
    redrawn = alive.path / path.name
    with alive_for_a_while(as_module(program)):
        export_onnx(program, redrawn, batch_symbol=traced.batch_symbol, opset=opset)
        return verify_onnx(redrawn, cases_of(program, inputs), TOLERANCE)


def real_inputs(
    data: Data | None, traced: Trace, note: Callable[[str], None] = lambda text: None
) -> Call | None:
    """The first samples as the program takes them; None where there are too few, or of other sizes
    than those that were traced, which is noted."""
    if data is None:
        return None
    size = traced.batch if traced.batch_symbol is None else traced.batch + 1
    why = ""
    if len(data) < size:
        why = f"there are {len(data)} samples, and a call takes {size}"
    elif has_other_sizes(data, traced):
        why = f"they are not of the sizes that were traced ({Call.of(traced.examples).shapes})"
    if why:
        note(f"files are compared with the network on random inputs, not on the samples: {why}")
        return None
    return data.fetch(range(size)).inputs


def cases_of(program: ExportedProgram, inputs: Sequence[ExampleInputs]) -> list[Case]:
    """What the program computes of each, under the ONNX file's names."""
    module = as_module(program)
    return [
        (user_inputs(program, each.args, each.kwargs), outputs_of(module, each)) for each in inputs
    ]


@contextmanager
def alive_for_a_while(module: nn.Module) -> Iterator[None]:
    """The module, and what shares its weights, with weights drawn anew for a while."""
    kept = {name: tensor.clone() for name, tensor in drawable(module)}
    try:
        redraw_(drawable(module))
        yield
    finally:
        with torch.no_grad():
            for name, tensor in drawable(module):
                tensor.copy_(kept[name])
