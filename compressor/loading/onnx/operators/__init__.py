"""Operators of ONNX files: THE table, one entry per operator, by kind in a file each.

An entry runs an operator on values. Tensors come as tensors; sizes, axes and the like come as
numbers, some of them symbolic, and are never read out of tensors. What a version of the operator
does otherwise, the entry does by the version; what an older version has as an attribute, it gets as
an input (`old_forms`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compressor.errors import CompressorError
from compressor.loading.onnx.contents import Node
from compressor.loading.onnx.operators import (
    by_numbers,
    cells,
    creating,
    images,
    picking,
    pointwise,
    products,
    reshaping,
    sliding,
    standardising,
    summing,
)
from compressor.loading.onnx.operators.by_numbers import TooManyError
from compressor.loading.onnx.operators.invocation import Entry, NodeCall
from compressor.loading.onnx.saying import refused
from compressor.loading.onnx.small_numbers import all_numbers

BRANCH = "If"
"""The one operator of control flow: the branch is taken that numbers choose."""


def _joined(*tables: Mapping[str, Entry]) -> dict[str, Entry]:
    joined: dict[str, Entry] = {}
    for each in tables:
        for key, entry in each.items():
            if key in joined:
                raise CompressorError(f"two entries run the operator {key}", next_step="keep one")
            joined[key] = entry
    return joined


ENTRIES = _joined(
    *(cells.ENTRIES, images.ENTRIES, creating.ENTRIES, picking.ENTRIES, pointwise.ENTRIES),
    *(products.ENTRIES, reshaping.ENTRIES, sliding.ENTRIES, standardising.ENTRIES),
    summing.ENTRIES,
)
"""All operators, by their keys."""


def require_entry(node: Node) -> None:
    """Check that a node's operator has an entry.

    Raises:
        CompressorError: It has none; the error names it and lists those that have one.
    """
    if node.op in ENTRIES or node.op == BRANCH:
        return
    is_control = node.op in ("Loop", "Scan", "SequenceMap")
    what = "goes on as data decide" if is_control else "has no entry in the table"
    known = ", ".join(sorted(key for key in (*ENTRIES, BRANCH) if "compressor." not in key))
    raise refused(
        f"the operator {node.op} (operators' version {node.version}) {what}",
        f"the node {node.name}",
        "export the network without it (another version of the operators, or its part of the "
        f"network alone); these have an entry: {known}",
    )


def run(call: NodeCall) -> tuple[Any, ...]:
    """Run one operator, on numbers where all that it is given is numbers.

    Raises:
        CompressorError: It is in a form that its entry does not run.
    """
    by_number = by_numbers.ENTRIES.get(call.op)
    if by_number is not None and call.inputs and all_numbers(call.inputs):
        try:
            return _as_tuple(by_number(call))
        except TooManyError:
            pass
    return _as_tuple(ENTRIES[call.op](call))


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)
