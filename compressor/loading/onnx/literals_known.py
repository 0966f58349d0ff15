"""Find the sizes and places that a file spells out, among those that are computed from shapes."""

from __future__ import annotations

from collections.abc import Mapping

from compressor.errors import CompressorError
from compressor.loading.onnx.operators import by_numbers
from compressor.loading.onnx.operators.invocation import Call
from compressor.loading.onnx.plan_of_steps import FromValue, Planned, Source
from compressor.loading.onnx.small_numbers import (
    UNKNOWN,
    Numbers,
    UnknownError,
    all_numbers,
    numbers,
)

LITERALS: Mapping[str, Mapping[int, str]] = {
    "ConstantOfShape": {0: "shape"},
    "Expand": {1: "shape"},
    "Pad": {1: "pads"},
    "Reshape": {1: "shape"},
    "Slice": {1: "starts", 2: "ends"},
    "Split": {1: "split"},
    "Tile": {1: "repeats"},
}
"""Operator -> positions of the inputs that say sizes -> what these are called."""


def known_numbers(steps: tuple[Planned, ...], ranks: Mapping[str, int]) -> dict[str, Numbers]:
    """Compute what follows from the file alone; elements that it does not say are `UNKNOWN`.

    Args:
        steps: The steps of a graph.
        ranks: Number of dimensions of each value, by name.
    """
    known: dict[str, Numbers] = {}
    for step in steps:
        entry = by_numbers.ENTRIES.get(step.op)
        given = [_number_of(source, known) for source in step.inputs]
        if step.op == "Shape" and given[0] is None:
            rank = _rank_of(step.inputs[0], ranks)
            if rank is not None and not step.node.attributes.get("start", 0):
                listed = [UNKNOWN] * rank
                known[step.outputs[0]] = numbers(listed[: step.node.attributes.get("end")])
            continue
        if entry is None or not given or not all_numbers(given) or given[0] is None:
            continue
        node = step.node
        call = Call(
            *(step.op, node.name, node.version, given, node.attributes, len(step.outputs)),
            training=False,
            device=None,
        )
        try:
            found = entry(call)
        except (CompressorError, UnknownError, by_numbers.TooManyError, ArithmeticError):
            continue
        except (ValueError, TypeError, IndexError, AttributeError):
            continue  # the run itself will say what is wrong
        results = found if isinstance(found, tuple) else (found,)
        known |= {name: n for name, n in zip(step.outputs, results, strict=False) if n is not None}
    return known


def _number_of(source: Source, known: Mapping[str, Numbers]) -> Numbers | None:
    if isinstance(source, Numbers):
        return source
    return known.get(source.name) if isinstance(source, FromValue) else None


def _rank_of(source: Source, ranks: Mapping[str, int]) -> int | None:
    return ranks.get(source.name) if isinstance(source, FromValue) else None


def literals_of(step: Planned, known: Mapping[str, Numbers]) -> dict[str, tuple[int, int, int]]:
    """Return the whole numbers that a step's sizes are spelled with.

    Returns:
        Name of the number ("shape_2") -> position of the input, of the element, and its value.
    """
    found: dict[str, tuple[int, int, int]] = {}
    for position, word in LITERALS.get(step.op, {}).items():
        source = step.inputs[position] if position < len(step.inputs) else None
        given = _number_of(source, known)
        for i, value in enumerate(given.listed if given is not None else []):
            if type(value) is int:
                found[f"{word}_{i}"] = (position, i, value)
    return found
