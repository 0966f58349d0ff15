"""Hold a file's tensors as torch's layers hold theirs, and turn them back for the file.

A product's weight is stored as [out, in]; a recurrent layer's as one tensor per direction, its
gates in torch's order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.loading.onnx.contents import Shared

Parts = dict[str, Tensor]
"""Ending of a name -> tensor."""


@dataclass(frozen=True)
class StoredForm(Shared):
    """How a tensor of the file is held.

    Attributes:
        name: What it is called, for comparing forms.
        read: The file's tensor -> the tensors that are held, by the ending of their names.
        write: The tensors in that order -> the file's tensor.
    """

    name: str
    read: Callable[[Tensor], Parts]
    write: Callable[[Sequence[Tensor]], Tensor]


PLAIN = StoredForm("plain", lambda tensor: {"": tensor}, lambda parts: parts[0])
TRANSPOSED = StoredForm(
    "transposed",
    lambda tensor: {"": tensor.t().contiguous()},
    lambda parts: parts[0].t().contiguous(),
)

GATES: Mapping[str, tuple[int, ...]] = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
"""Operator -> for each gate in torch's order, its position in ONNX's.

torch: LSTM input, forget, cell, output; GRU reset, update, new. ONNX: LSTM input, output, forget,
cell; GRU update, reset, hidden.
"""


def _reorder(rows: Tensor, order: Sequence[int]) -> Tensor:
    """Return rows [gates * hidden, ...] with the gates in another order."""
    gates = rows.chunk(len(order))
    return torch.cat([gates[i] for i in order])


def _back(order: Sequence[int]) -> list[int]:
    return [list(order).index(i) for i in range(len(order))]


def recurrent(op: str, position: int) -> StoredForm:
    """Return the form of a recurrent layer's input 1 (W), 2 (R) or 3 (B)."""
    order = GATES[op]

    def endings(directions: int) -> list[str]:
        return [""] if directions == 1 else [f"_{d}" for d in range(directions)]

    def read(tensor: Tensor) -> Parts:
        parts: Parts = {}
        for ending, rows in zip(endings(len(tensor)), tensor, strict=True):
            if position < 3:
                parts[ending] = _reorder(rows, order)
            else:
                for side, half in zip(("_ih", "_hh"), rows.chunk(2), strict=True):
                    parts[f"{side}{ending}"] = _reorder(half, order)
        return parts

    def write(parts: Sequence[Tensor]) -> Tensor:
        turned = [_reorder(part, _back(order)) for part in parts]
        if position < 3:
            return torch.stack(turned)
        halves = [torch.cat(turned[i : i + 2]) for i in range(0, len(turned), 2)]
        return torch.stack(halves)

    return StoredForm(f"{op} {position}", read, write)
