"""Is an ONNX file the network that it was written from?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from compressor.agreement import ONNX, Tolerance, is_live, shaken
from compressor.calls import Call
from compressor.data import Data
from compressor.export import Case, Way, export_onnx, user_inputs, verify_onnx
from compressor.planning.fitting import has_other_sizes
from compressor.planning.original import TemporaryFolder
from compressor.programs.redraw import DRAWS, drawable, redraw_
from compressor.records import ExampleInputs, Trace
from compressor.slicing import as_module, variants
from compressor.slicing.compare import outputs_of


def written_and_verified(
    program: ExportedProgram,
    path: Path,
    traced: Trace,
    ways: Sequence[Way],
    *,
    real: Call | None = None,
    metadata: Mapping[str, str] | None = None,
    opset: int | None = None,
) -> tuple[float, Way]:
    """Write a program's ONNX file in the first of some ways that works and computes what the
    program does.

    Returns:
        The largest relative difference, and the way.

    Raises:
        CompressorError: No way does; the reasons of all.
        UsageError: The same where an opset is asked for.
    """
    worst = 0.0

    def check(way: Way) -> None:
        nonlocal worst
        worst = verified(program, path, traced, real=real, opset=opset, way=way)

    way = export_onnx(
        *(program, path),
        batch_symbol=traced.batch_symbol,
        metadata=metadata,
        opset=opset,
        ways=ways,
        check=check,
    )
    return worst, way


def verified(
    program: ExportedProgram,
    path: Path,
    traced: Trace,
    *,
    real: Call | None = None,
    opset: int | None = None,
    way: Way | None = None,
) -> float:
    """Compare the ONNX file with the program on random inputs, of two batch sizes where the batch
    is free, and on real ones; under live weights as well where its own are dead.

    Args:
        traced: Has the example inputs.
        real: Inputs from the user's data.
        opset, way: The file's, should it have to be written again; a way that fixes the batch
            takes one sample.

    Returns:
        The largest relative difference.

    Raises:
        CompressorError: ONNX Runtime computes something else, or the file does not run.
    """
    own = [ExampleInputs(real.args, real.kwargs)] if real is not None else []
    inputs = [*variants(traced), *own]
    if way is not None and not way.free_batch and traced.batch_symbol is not None:
        inputs = [cut_to_one(each) for each in inputs]

    def write(target: Path) -> None:
        symbol, ways = traced.batch_symbol, None if way is None else (way,)
        export_onnx(program, target, batch_symbol=symbol, opset=opset, ways=ways)

    return compared(program, inputs, path, write)


def compared(
    program: ExportedProgram,
    inputs: Sequence[ExampleInputs],
    path: Path,
    write: Callable[[Path], None],
    tolerance: Tolerance = ONNX,
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

    def is_alive() -> bool:
        return is_live(outputs_for(module, inputs), resolved=tolerance.resolved)

    worst = verify(path, must_be_live=False)
    if is_alive():
        return worst
    alive = TemporaryFolder()
    redrawn = alive.path / path.name
    with alive_for_a_while(module, is_alive):
        write(redrawn)
        return max(worst, verify(redrawn, must_be_live=True))


def cut_to_one(inputs: ExampleInputs) -> ExampleInputs:
    """The inputs' first sample."""
    args, kwargs = pytree.tree_map(
        lambda leaf: leaf[:1] if isinstance(leaf, Tensor) and leaf.dim() else leaf,
        (inputs.args, dict(inputs.kwargs)),
    )
    return ExampleInputs(args, kwargs, inputs.origin)


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
    found = outputs_for(as_module(program), inputs)
    return [
        (user_inputs(program, each.args, each.kwargs), outputs)
        for each, outputs in zip(inputs, found, strict=True)
    ]


def outputs_for(module: nn.Module, inputs: Sequence[ExampleInputs]) -> list[list[Tensor]]:
    """What a module computes of each."""
    return [outputs_of(module, each) for each in inputs]


@contextmanager
def alive_for_a_while(module: nn.Module, is_alive: Callable[[], bool]) -> Iterator[None]:
    """The module, and what shares its weights, with weights drawn anew for a while, several times
    at most until it is alive."""
    kept = {name: tensor.clone() for name, tensor in drawable(module)}
    try:
        for seed in range(DRAWS):
            redraw_(drawable(module), seed)
            if is_alive():
                break
        yield
    finally:
        with torch.no_grad():
            for name, tensor in drawable(module):
                tensor.copy_(kept[name])
