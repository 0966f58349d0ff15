"""Verify that a file computes what PyTorch computed, as its runtime runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from compressor.agreement import ONNX, Cases, Tolerance, difference, is_live
from compressor.errors import CompressorError
from compressor.machine import cores
from compressor.runtimes.inputs import feeds_for
from compressor.runtimes.onnx import open_session

Case = tuple[Mapping[str, Any], Sequence[Any]]
"""Inputs by name, and the outputs that they should give: tensors or arrays."""

Array = np.ndarray[Any, Any]
Run = Callable[[Mapping[str, Any]], list[Array]]
"""A file as a function from inputs by name, of which it ignores those it has not, to outputs."""


@dataclass(frozen=True)
class Opened:
    """A file that is ready to be run, and what errors call it.

    Attributes:
        path: Where it lies.
        run: Runs it.
        label: What the file is called.
        runtime: What runs it is called.
    """

    path: Path
    run: Run
    label: str
    runtime: str


def verify_onnx(
    path: Path,
    cases: Sequence[Case],
    tolerance: Tolerance = ONNX,
    *,
    rounding: Callable[[], Sequence[Cases]] | None = None,
    must_be_live: bool = True,
    optimised: bool = True,
) -> float:
    """Run the file on ONNX Runtime and compare its outputs with PyTorch's.

    Args:
        path: The ONNX file.
        cases: Inputs with PyTorch's outputs; at least two, with different inputs.
        tolerance: The tolerance of the type that the file computes in.
        rounding: PyTorch's outputs after changes as small as rounding (see `difference`).
        must_be_live: Raise an error where the outputs are equal for all inputs, since the
            comparison would show nothing; off where the caller shows it otherwise.
        optimised: Off: operators run as they stand in the file, none fused with others.

    Returns:
        The largest difference of all elements, relative to what varies where they stand.

    Raises:
        CompressorError: A difference above the tolerance, a dead reference, or a file that does not
            run.
    """
    if must_be_live:
        require_alive(cases, path, tolerance)
    opened = Opened(path, _open(path, optimised=optimised), "ONNX file", "ONNX Runtime")
    return compare_outputs(opened, cases, tolerance, rounding)


def compare_outputs(
    opened: Opened,
    cases: Sequence[Case],
    tolerance: Tolerance,
    rounding: Callable[[], Sequence[Cases]] | None = None,
) -> float:
    """Run a file on inputs and compare its outputs with PyTorch's.

    Args:
        opened: The file.
        cases: Inputs with PyTorch's outputs.
        tolerance: The tolerance of the type that the file computes in.
        rounding: PyTorch's outputs after changes as small as rounding (see `difference`).

    Returns:
        The largest difference of all elements, relative to what varies where they stand.

    Raises:
        CompressorError: Other shapes, or a difference above the tolerance.
    """
    expected = [[to_array(output) for output in outputs] for _, outputs in cases]
    actual = [opened.run(feeds) for feeds, _ in cases]
    for wanted, got in zip(expected, actual, strict=True):
        if [a.shape for a in wanted] != [b.shape for b in got]:
            raise CompressorError(
                f"the {opened.label}'s outputs have shapes {[b.shape for b in got]}, "
                f"PyTorch's {[a.shape for a in wanted]}",
                where=str(opened.path),
                next_step="report it with the network, and deploy the .pt2 program",
            )
    worst = difference(expected, actual, tolerance, rounding)
    if not worst.size <= tolerance.relative:
        raise CompressorError(
            f"{opened.runtime} and PyTorch differ by {worst.size:.1e} of what varies there "
            f"(accepted: {tolerance.relative:.0e}): {worst.place}",
            where=str(opened.path),
            consequence="the file does not compute what the network computes",
            next_step="do not deploy it; report it with the network",
        )
    return worst.size


def to_array(value: Any) -> Array:
    """Return a value as ONNX has it: complex numbers become pairs of real and imaginary part.

    The pairs are a new last dimension.
    """
    plain = value.detach().cpu().resolve_conj() if isinstance(value, Tensor) else value
    array: Array = plain.resolve_neg().numpy() if isinstance(plain, Tensor) else np.asarray(plain)
    return np.stack([array.real, array.imag], -1) if np.iscomplexobj(array) else array


def _widened(array: Array) -> Array:
    """Return narrow floats as float32, which the network computes in."""
    return array.astype(np.float32) if array.dtype == np.float16 else array


def require_alive(cases: Sequence[Case], path: Path, tolerance: Tolerance) -> None:
    """Raise CompressorError for a dead network, on which a comparison shows nothing."""
    expected = [[to_array(output) for output in outputs] for _, outputs in cases]
    if len(expected) < 2 or not expected[0]:
        reason = "it takes the outputs for two different inputs"
    elif not any(np.isfinite(output).any() for outputs in expected for output in outputs):
        reason = "no output of the network is finite"
    elif not is_live(expected, resolved=tolerance.resolved):
        reason = "the outputs are equal for different inputs"
    else:
        return
    raise CompressorError(
        f"the comparison would show nothing: {reason}",
        where=str(path),
        consequence="the file was not verified",
        next_step="give samples that the network answers to (--data), or a trained network",
    )


def _open(path: Path, *, optimised: bool) -> Run:
    """Open the file as a function from named inputs to outputs, which ignores unknown inputs."""
    with _failures_named(path):
        session = open_session(path, cores(), optimised=optimised)

    def run(feeds: Mapping[str, Any]) -> list[Array]:
        given = feeds_for(session, {name: to_array(value) for name, value in feeds.items()})
        with _failures_named(path):
            return [_widened(np.asarray(output)) for output in session.run(None, given)]

    return run


@contextmanager
def _failures_named(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # ONNX Runtime's own exceptions share no base but this one
        raise CompressorError(
            f"ONNX Runtime could not run the file: {error}",
            where=str(path),
            consequence="it was not verified",
            next_step="report it with the network, and deploy the .pt2 program",
        ) from error
