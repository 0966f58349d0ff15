"""Is an ONNX file the network that it was written from?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from compressor.agreement import FLOAT32, Tolerance, is_live, shaken
from compressor.data import Data
from compressor.export import Case, export_onnx, user_inputs, verify_onnx
from compressor.planning.original import TemporaryFolder
from compressor.programs.redraw import drawable, redraw_
from compressor.records import ExampleInputs, Trace
from compressor.slicing import as_module, variants
from compressor.slicing.compare import outputs_of


def verified(
    program: ExportedProgram,
    path: Path,
    traced: Trace,
    *,
    real: tuple[Any, ...] | None = None,
    opset: int | None = None,
) -> float:
    """Compare the ONNX file with the program on random inputs, of two batch sizes where the batch
    is free, and on real ones; under live weights as well where its own are dead.

    Args:
        traced: Has the example inputs.
        real: Positional inputs from the user's data.
        opset: The file's, should it have to be written again.

    Returns:
        The largest relative difference.

    Raises:
        CompressorError: ONNX Runtime computes something else, or the file does not run.
    """
    inputs = [*variants(traced), *([ExampleInputs(real)] if real is not None else [])]

    def write(target: Path) -> None:
        export_onnx(program, target, batch_symbol=traced.batch_symbol, opset=opset)

    return compared(program, inputs, path, write)


def compared(
    program: ExportedProgram,
    inputs: Sequence[ExampleInputs],
    path: Path,
    write: Callable[[Path], None],
    tolerance: Tolerance = FLOAT32,
    *,
    optimised: bool = True,
) -> float:
    """Compare an ONNX file with the program; where the program's outputs do not change with the
    inputs, also under weights drawn anew, with a file that `write` makes of these.

    Returns:
        The largest relative difference.

    Raises:
        CompressorError: They differ, the file does not run, or the outputs never change.
    """
    module = as_module(program)

    def verify(file: Path, *, must_be_live: bool) -> float:
        return verify_onnx(
            file,
            cases_of(program, inputs),
            tolerance,
            rounding=lambda: shaken(module, lambda copy: outputs_for(copy, inputs), tolerance),
            must_be_live=must_be_live,
            optimised=optimised,
        )

    worst = verify(path, must_be_live=False)
    if is_live(outputs_for(module, inputs)):
        return worst
    alive = TemporaryFolder()
    redrawn = alive.path / path.name
    with alive_for_a_while(module):
        write(redrawn)
        return max(worst, verify(redrawn, must_be_live=True))


def real_inputs(data: Data | None, traced: Trace) -> tuple[Any, ...] | None:
    """The first samples as the program takes them; None where there are too few, or of another
    shape than the one that was traced."""
    size = traced.batch if traced.batch_symbol is None else traced.batch + 1
    if data is None or len(data) < size or not fits(data, traced):
        return None
    return data.fetch(range(size)).inputs


def fits(data: Data, traced: Trace) -> bool:
    """Whether the data's inputs are all that the program takes, and of the sizes that it has."""
    examples = traced.examples
    shapes = [[_sample_shape(x) for x in inputs] for inputs in (data.first_sample, examples.args)]
    return not examples.kwargs and shapes[0] == shapes[1]


def _sample_shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape[1:]) if isinstance(value, Tensor) else None


def cases_of(program: ExportedProgram, inputs: Sequence[ExampleInputs]) -> list[Case]:
    """What the program computes of each, under the ONNX file's names."""
    found = outputs_for(as_module(program), inputs)
    return [
        (user_inputs(program, each.args, each.kwargs), outputs)
        for each, outputs in zip(inputs, found, strict=True)
    ]


def outputs_for(module: nn.Module, inputs: Sequence[ExampleInputs]) -> list[list[Tensor]]:
    """What a module computes of each."""
    return [outputs_of(module, each) for each in inputs]


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
