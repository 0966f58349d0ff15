"""Check that the traced program runs on samples of other sizes than it was traced with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from compressor.calls import Call
from compressor.errors import CompressorError
from compressor.least_squares import Script
from compressor.loading.data import Data
from compressor.records import Trace

_NEAR = 1e-2
"""Largest difference that passes, relative to the largest output. It tells one network from
another, not one kernel from another."""


def check_program(traced: Trace, samples: Sequence[Data]) -> None:
    """Run the program on samples of other sizes, and compare it with the network.

    This is done before anything relies on the program.

    Raises:
        CompressorError: The program cannot take such samples, or computes something else.
    """
    for data in samples:
        if has_other_sizes(data, traced) and len(data) >= traced.batch:
            for index in data.extremes:
                _check(traced, data, data.alike(traced.batch, index))


def has_other_sizes(data: Data, traced: Trace) -> bool:
    """Return whether samples have other sizes, apart from the batch, than the traced inputs."""
    return data.is_ragged or _sizes(data.first_sample) != _sizes(Call.of(traced.examples))


def find_traced(data: Data, traced: Trace, count: int) -> Call | None:
    """Return so many samples of the traced sizes as one call; None where there are none."""
    if not data.is_ragged:
        return None if has_other_sizes(data, traced) else data.fetch(range(count)).inputs
    wanted = _sizes(Call.of(traced.examples))
    indices = range(len(data))
    first = next((i for i in indices if _sizes(data.fetch([i]).inputs) == wanted), None)
    return None if first is None else data.fetch(data.alike(count, first)).inputs


def _sizes(call: Call) -> list[Any]:
    return [tuple(x.shape[1:]) if isinstance(x, Tensor) else None for x in call.leaves]


def _check(traced: Trace, data: Data, indices: Sequence[int]) -> None:
    inputs = data.fetch(indices).inputs
    try:
        with torch.no_grad():
            outputs = Script(traced.program).start(inputs).outputs()
            wanted = Call((inputs.to(traced.module),)).leaves
        why = "" if _agree(outputs, wanted) else "it computes something else for them"
    except Exception as error:  # what operators raise for sizes that they were not traced with
        why = " ".join(str(error).split())[:200]
    if why:
        raise CompressorError(
            f"the program that was traced cannot take the samples: {why}",
            where=f"traced with {Call.of(traced.examples).shapes}; {data.name} has {inputs.shapes}",
            consequence="nothing was done",
            next_step="its sizes are fixed: pad or cut the samples to one length (or give them "
            "with an attention_mask, under which they are filled up)"
            if data.is_ragged
            else "give example inputs (--input) of the samples' sizes, or none: then the samples "
            "say them",
        )


def _agree(outputs: list[Any], wanted: list[Any]) -> bool:
    pairs = [(a, b) for a, b in zip(outputs, wanted, strict=False) if isinstance(b, Tensor)]
    return all(a.shape == b.shape and _near(a.double(), b.double()) for a, b in pairs)


def _near(output: Tensor, wanted: Tensor) -> bool:
    finite = wanted.isfinite()
    scale = wanted[finite].abs().max() if finite.any() else 1.0
    return bool(((output - wanted)[finite].abs() <= _NEAR * scale).all())
