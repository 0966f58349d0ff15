"""Define how an operator of an ONNX file is run: a call with values, and entries of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compressor.loading.onnx.saying import refused
from compressor.loading.onnx.small_numbers import Numbers, numbers

Value = Any
"""What flows along a graph's edges: a tensor, numbers, or a tuple of these (a sequence)."""


@dataclass(frozen=True)
class NodeCall:
    """One run of an operator.

    Attributes:
        op: Its key in the table.
        name: The node's name, for messages.
        version: The version of ONNX's operators that it is of.
        inputs: Its inputs; None for one that is left out.
        attributes: Its attributes by name.
        outputs: How many outputs are wanted, those before the last wanted one included.
        training: Whether the network is being trained.
        device: Where tensors are made.
    """

    op: str
    name: str
    version: int
    inputs: Sequence[Value]
    attributes: Mapping[str, Any]
    outputs: int
    training: bool
    device: torch.device | None

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute, or the default where it is not given."""
        return self.attributes.get(name, default)

    def has(self, position: int) -> bool:
        """Return whether an input is given."""
        return position < len(self.inputs) and self.inputs[position] is not None

    def raw(self, position: int) -> Value:
        """Return an input as it flows; None where it is left out."""
        return self.inputs[position] if position < len(self.inputs) else None

    def tensor(self, position: int) -> Tensor:
        """Return an input as a tensor.

        Raises:
            CompressorError: It is left out.
        """
        value = self.raw(position)
        if isinstance(value, Numbers):
            return value.tensor(self.device)
        if not isinstance(value, Tensor):
            raise self.refusal(f"lacks its input {position}")
        return value

    def optional(self, position: int) -> Tensor | None:
        """Return an input as a tensor, or None where it is left out."""
        return self.tensor(position) if self.has(position) else None

    @property
    def x(self) -> Tensor:
        """Return the first input as a tensor."""
        return self.tensor(0)

    def numbers(self, position: int) -> list[Any]:
        """Return the elements of an input that says sizes, axes or the like.

        Raises:
            CompressorError: They are computed from data.
        """
        value = self.raw(position)
        if isinstance(value, Numbers):
            return value.listed
        raise self.refusal(
            f"takes sizes or places from its input {position}, which is computed from data"
        )

    def given_numbers(self, position: int, default: Any = None) -> Any:
        """Return `numbers`, or the default where the input is left out."""
        return self.numbers(position) if self.has(position) else default

    def number(self, position: int, default: Any = None) -> Any:
        """Return the only element of `numbers`, or the default where the input is left out."""
        return self.numbers(position)[0] if self.has(position) else default

    def operand(self, position: int) -> Any:
        """Return an input for arithmetic: a tensor, or one number where that is all that it is."""
        value = self.raw(position)
        if not isinstance(value, Numbers):
            return self.tensor(position)
        rank = max((v.dim() for v in self.inputs if isinstance(v, Tensor)), default=0)
        is_one = value.array.size == 1 and value.array.ndim <= rank
        return value.listed[0] if is_one else value.tensor(self.device)

    def refusal(self, why: str) -> Exception:
        """Make the error for what this entry does not do."""
        return refused(
            f"{self.op} (operators' version {self.version}) {why}", f"the node {self.name}"
        )


Entry = Callable[[NodeCall], Value]
"""Runs an operator: the call in, its output or a tuple of its outputs out."""


def sizes_of(x: Tensor) -> Numbers:
    """Return a tensor's sizes as numbers, free ones symbolic."""
    return numbers(list(x.shape))


def table(entry: Entry, names: str) -> dict[str, Entry]:
    """Return rows that give several operators one entry."""
    return dict.fromkeys(names.split(), entry)
