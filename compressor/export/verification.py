"""Does an ONNX file compute what PyTorch computed?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from compressor.errors import CompressorError

Case = tuple[Mapping[str, Any], Sequence[Any]]
"""Inputs by name, and the outputs that they should give: tensors or arrays."""

Array = np.ndarray[Any, Any]

_DEAD = 1e-12  # no network that works has outputs this small


def verify_onnx(
    path: Path,
    cases: Sequence[Case],
    tolerance: float = 1e-4,
    *,
    live: float | None = None,
    optimised: bool = True,
) -> float:
    """Run the file on ONNX Runtime and compare with what PyTorch gave.

    Args:
        cases: At least two, with different inputs: were the outputs then equal, or constant,
            the comparison would show nothing, and that is an error.
        tolerance: Largest relative difference, max|a-b| / max|a| of an output a.
        optimised: Off: operators run as they stand in the file, none fused with others.
        live: What the outputs must differ by from place to place; default the tolerance.

    Returns:
        The worst relative difference over all outputs and cases.

    Raises:
        CompressorError: above the tolerance, a dead reference, a file that does not run.
    """
    wanted = [[_array(output) for output in outputs] for _, outputs in cases]
    _require_alive(wanted, path, tolerance if live is None else live)
    run, worst = _open(path, optimised=optimised), 0.0
    for (feeds, _), expected in zip(cases, wanted, strict=True):
        found = run(feeds)
        if [a.shape for a in expected] != [b.shape for b in found]:
            raise CompressorError(
                f"The ONNX file's outputs have shapes {[b.shape for b in found]}, "
                f"PyTorch's {[a.shape for a in expected]}.",
                where=str(path),
            )
        worst = max([worst, *(_difference(a, b) for a, b in zip(expected, found, strict=True))])
    if worst > tolerance:
        raise CompressorError(
            f"ONNX Runtime and PyTorch differ by {worst:.1e} of the largest output "
            f"(accepted: {tolerance:.0e}).",
            where=str(path),
            consequence="The file does not compute what the network computes.",
            next_step="Do not deploy it; report it with the network.",
        )
    return worst


def _array(value: Any) -> Array:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)


def _difference(reference: Array, other: Array) -> float:
    """max|a-b| / max|a|; infinite where either is not a number."""
    if not reference.size:
        return 0.0
    a, b = reference.astype(np.float64), other.astype(np.float64)
    worst = float(np.abs(a - b).max() / (np.abs(a).max() or 1.0))
    return worst if np.isfinite(worst) else float("inf")


def _require_alive(wanted: Sequence[Sequence[Array]], path: Path, tolerance: float) -> None:
    """A comparison on a dead network shows nothing."""
    first, others = (wanted[0], wanted[1:]) if wanted else ([], [])
    reason = ""
    if not (first and others):
        reason = "it takes the outputs for two different inputs"
    elif not all(np.isfinite(output).all() for outputs in wanted for output in outputs):
        reason = "the network's own outputs are not finite"
    elif all(_is_constant(output, tolerance) for outputs in wanted for output in outputs):
        reason = "all outputs are constant"
    elif all(_is_equal(first, other, tolerance) for other in others):
        reason = "the outputs are equal for different inputs"
    if reason:
        raise CompressorError(
            f"The comparison would show nothing: {reason}.",
            where=str(path),
            consequence="The ONNX file was not verified.",
            next_step="Use a trained network; with random weights, give them a spread.",
        )


def _is_constant(output: Array, tolerance: float) -> bool:
    """Nothing in it tells two networks apart (a single number may, between two inputs)."""
    values = np.abs(output.astype(np.float64))
    if not values.size or values.max() < _DEAD:
        return True
    return values.size > 1 and float(np.ptp(output.astype(np.float64)) / values.max()) <= tolerance


def _is_equal(some: Sequence[Array], others: Sequence[Array], tolerance: float) -> bool:
    return all(
        a.shape == b.shape and _difference(a, b) <= tolerance
        for a, b in zip(some, others, strict=True)
    )


def _open(path: Path, *, optimised: bool) -> Callable[[Mapping[str, Any]], list[Array]]:
    """The file as a function from named inputs to outputs; inputs it has no use for are ignored."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    with _failures_named(path):
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    wanted = {spec.name for spec in session.get_inputs()}

    def run(feeds: Mapping[str, Any]) -> list[Array]:
        given = {name: _array(value) for name, value in feeds.items() if name in wanted}
        with _failures_named(path):
            return [np.asarray(output) for output in session.run(None, given)]

    return run


@contextmanager
def _failures_named(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # ONNX Runtime's own exceptions share no base but this one
        raise CompressorError(
            f"ONNX Runtime could not run the file: {error}",
            where=str(path),
            consequence="It was not verified.",
        ) from error
