"""Give every stored tensor its dimensions: one expression per place in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from compressor.errors import CompressorError
from compressor.graph.axes import Axis
from compressor.graph.network import Shape
from compressor.graph.rules import reasons
from compressor.graph.solver import Reason, Solver
from compressor.on_demand import memory_of

_Place = tuple[int, tuple[int, ...], tuple[int, ...], int]
"""A tensor's storage, shape, strides and offset; the same for tied tensors."""


@dataclass
class StoredTensors:
    """The dimensions of parameters, buffers and constants, as programs are walked over.

    Attributes:
        shapes: Name -> dimensions.
        aliases: Name of a tied tensor -> the name that stands for it.
        used: Names of the tensors that an operator takes, under the name that stands for them.
    """

    shapes: dict[str, Shape] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    _places: dict[_Place, str] = field(default_factory=dict)

    def add(self, name: str, tensor: Any, sizes: tuple[int, ...], solver: Solver) -> Shape:
        """Return the dimensions of a stored tensor, made anew where the name is not known.

        Tied tensors share theirs; tensors that overlap otherwise are protected.

        Raises:
            CompressorError: The tensor is sparse.
        """
        if name in self.shapes:
            return self.shapes[name]
        if tensor.layout != torch.strided:
            raise CompressorError(
                f"a tensor of the network is not dense: {name} ({tensor.layout})",
                consequence="its channels cannot be cut",
                next_step="make it dense (tensor.to_dense()): what is zero in it stays zero",
            )
        memory = memory_of(tensor)
        place = (memory, tuple(tensor.shape), tuple(tensor.stride()), tensor.storage_offset())
        if memory and place in self._places:
            self.aliases[name] = self._places[place]
            shape = self.shapes[self._places[place]]
        else:
            shape = tuple(map(Axis, sizes))
        for other, other_name in self._places.items():
            if memory and other[0] == memory and other != place:
                for dim in (*shape, *self.shapes[other_name]):
                    solver.protect(dim, Reason(reasons.SHARES_MEMORY, name))
        self._places.setdefault(place, name)
        self.shapes[name] = shape
        return shape

    def use(self, name: str) -> None:
        """Note that an operator takes the tensor."""
        self.used.add(self.aliases.get(name, name))

    def is_used(self, name: str) -> bool:
        """Return whether an operator takes the tensor, under any of its names."""
        return self.aliases.get(name, name) in self.used

    @property
    def own(self) -> Mapping[str, Shape]:
        """The dimensions by name, tied tensors once."""
        return {name: shape for name, shape in self.shapes.items() if name not in self.aliases}
