"""Verify that an ONNX file computes what the network computes that it was written from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from compressor.agreement import ONNX, Tolerance, is_live, is_loud, shake
from compressor.calls import Call
from compressor.formats import Case, Route, export_onnx, user_inputs, verify_onnx
from compressor.formats.original import TemporaryFolder
from compressor.graph.programs.redraw import drawable, redraw_until_clear
from compressor.loading.data import Data
from compressor.loading.other_sizes import find_traced
from compressor.records import ExampleInputs, Trace
from compressor.slicing import as_module, variants
from compressor.slicing.compare import outputs_of


def write_and_verify(
    program: ExportedProgram,
    path: Path,
    traced: Trace,
    routes: Sequence[Route],
    *,
    real: Call | None = None,
    metadata: Mapping[str, str] | None = None,
    opset: int | None = None,
) -> tuple[float, Route]:
    """Write a program as ONNX in the first route that works and computes what the program does.

    Args:
        program: The program.
        path: The ONNX file.
        traced: Has the example inputs, and the batch where it is free.
        routes: What is tried, in this order.
        real: Inputs from the user's data, on which the two are compared as well.
        metadata: What the file says of itself, by name.
        opset: Version of ONNX's operators; None for the exporter's own.

    Returns:
        The largest relative difference, and the route.

    Raises:
        CompressorError: No route works; it gives the reasons of all.
        UsageError: No route works with the opset that is asked for.
    """
    worst = 0.0

    def check(route: Route) -> None:
        nonlocal worst
        worst = verify_file(program, path, traced, real=real, opset=opset, route=route)

    route = export_onnx(
        *(program, path),
        batch_symbol=traced.batch_symbol,
        metadata=metadata,
        opset=opset,
        routes=routes,
        check=check,
    )
    return worst, route


def verify_file(
    program: ExportedProgram,
    path: Path,
    traced: Trace,
    *,
    real: Call | None = None,
    opset: int | None = None,
    route: Route | None = None,
) -> float:
    """Compare an ONNX file with the program that it was written from.

    The inputs are random, of two batch sizes where the batch is free, and real ones. Where the
    network's outputs do not change with its inputs, it is compared under weights drawn anew as
    well.

    Args:
        program: The program.
        path: The ONNX file.
        traced: Has the example inputs.
        real: Inputs from the user's data.
        opset: The file's, should it have to be written again.
        route: Likewise; a route that fixes the batch takes one sample.

    Returns:
        The largest relative difference.

    Raises:
        CompressorError: ONNX Runtime computes something else, or the file does not run.
    """
    inputs = inputs_to_compare(traced, real, free_batch=route is None or route.free_batch)

    def write(target: Path) -> None:
        symbol, routes = traced.batch_symbol, None if route is None else (route,)
        export_onnx(program, target, batch_symbol=symbol, opset=opset, routes=routes)

    return compare_file(program, inputs, path, write, ONNX if route is None else route.tolerance)


def inputs_to_compare(traced: Trace, real: Call | None, *, free_batch: bool) -> list[ExampleInputs]:
    """Return what a file and its program are called with.

    Args:
        traced: Has the example inputs, and the batch where it is free.
        real: Inputs from the user's data.
        free_batch: Whether the file takes any number of samples; else it is given one.
    """
    own = [ExampleInputs(real.args, real.kwargs)] if real is not None else []
    inputs = [*variants(traced), *own]
    if not free_batch and traced.batch_symbol is not None:
        # where inputs are numbers of tokens, the first samples are all the same
        return [*map(cut_to_one, inputs), cut_to_one(traced.examples, 1)]
    return inputs


def compare_file(
    program: ExportedProgram,
    inputs: Sequence[ExampleInputs],
    path: Path,
    write: Callable[[Path], None],
    tolerance: Tolerance = ONNX,
    *,
    verified: Callable[..., float] | None = None,
    **how: Any,
) -> float:
    """Compare a file with the program on given inputs.

    Where the program's outputs do not change with the inputs, the two are also compared under
    weights drawn anew; the program has its own weights back at the end.

    Args:
        program: The program.
        inputs: What both are called with.
        path: The file.
        write: Writes such a file of the program as it is, under another name.
        tolerance: The tolerance of the type that the file computes in.
        verified: Compares a file with PyTorch's outputs, and is called like `verify_onnx`, the
            default.
        how: Options of `verified`.

    Returns:
        The largest relative difference.

    Raises:
        CompressorError: They differ, the file does not run, or the outputs never change.
    """
    module = as_module(program)

    def outputs(of: nn.Module) -> list[list[Tensor]]:
        return outputs_for(of, inputs)

    def verify(file: Path, *, must_be_live: bool) -> float:
        return (verified or verify_onnx)(
            file,
            cases_of(program, inputs),
            tolerance,
            rounding=lambda: shake(module, outputs, tolerance),
            must_be_live=must_be_live,
            **how,
        )

    def is_alive() -> bool:
        return is_live(outputs(module), resolved=tolerance.resolved)

    def is_quiet() -> bool:
        return not is_loud(outputs(module), shake(module, outputs, tolerance))

    worst = verify(path, must_be_live=False)
    if is_alive():
        return worst
    alive = TemporaryFolder()
    redrawn = alive.path / path.name
    with alive_for_a_while(module, is_alive, is_quiet):
        write(redrawn)
        return max(worst, verify(redrawn, must_be_live=True))


def cut_to_one(inputs: ExampleInputs, number: int = 0) -> ExampleInputs:
    """Return the inputs with every tensor cut to one sample, counted round from the first."""

    def cut(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.dim() or not len(leaf):
            return leaf
        return leaf[number % len(leaf) :][:1]

    args, kwargs = pytree.tree_map(cut, (inputs.args, dict(inputs.kwargs)))
    return ExampleInputs(args, kwargs, inputs.origin)


def real_inputs(
    data: Data | None, traced: Trace, note: Callable[[str], None] = lambda text: None
) -> Call | None:
    """Return the first samples as the program takes them.

    Args:
        data: The user's samples, if there are any.
        traced: Has the sizes and the batch that the program takes.
        note: Told why no samples are used.

    Returns:
        One call; None where there are no samples, too few, or of other sizes than were traced.
    """
    if data is None:
        return None
    size = traced.batch if traced.batch_symbol is None else traced.batch + 1
    call = find_traced(data, traced, size) if len(data) >= size else None
    if call is None:
        few = f"there are {len(data)} samples, and a call takes {size}"
        sizes = f"they are not of the sizes that were traced ({Call.of(traced.examples).shapes})"
        why = few if len(data) < size else sizes
        note(f"files are compared with the network on random inputs, not on the samples: {why}")
    return call


def cases_of(program: ExportedProgram, inputs: Sequence[ExampleInputs]) -> list[Case]:
    """Compute the program's outputs for each of the inputs, these under the ONNX file's names."""
    all_outputs = outputs_for(as_module(program), inputs)
    return [
        (user_inputs(program, each.args, each.kwargs), outputs)
        for each, outputs in zip(inputs, all_outputs, strict=True)
    ]


def outputs_for(module: nn.Module, inputs: Sequence[ExampleInputs]) -> list[list[Tensor]]:
    """Compute a module's outputs for each of the inputs."""
    return [outputs_of(module, each) for each in inputs]


@contextmanager
def alive_for_a_while(
    module: nn.Module, is_alive: Callable[[], bool], is_quiet: Callable[[], bool]
) -> Iterator[None]:
    """Draw the weights of a module, and of what shares them, anew for the block.

    At its end they are put back. The arguments are those of `redraw_until_clear`.
    """
    kept = {name: tensor.clone() for name, tensor in drawable(module)}
    try:
        redraw_until_clear(module, is_alive, is_quiet)
        yield
    finally:
        with torch.no_grad():
            for name, tensor in drawable(module):
                tensor.copy_(kept[name])
