"""See parameters as the channels of their groups do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from compressor.graph.axes import coordinates
from compressor.graph.network import Network
from compressor.records import Member
from compressor.score.criterion import Floats

MOST = 3 << 20
"""How many numbers of a parameter are held in double precision at a time."""


def precise(tensor: torch.Tensor) -> torch.Tensor:
    """Convert a tensor to double precision, complex where it is; on the CPU where its device has
    none."""
    held = tensor.cpu() if tensor.device.type == "mps" else tensor
    return held.to(torch.complex128 if held.is_complex() else torch.float64)


@dataclass(frozen=True)
class Place:
    """A parameter in a group.

    Attributes:
        member: The parameter's dimension in the group.
        tensor: The parameter.
        channel: The channel at each position of the dimension, [positions]; -1 for none.
        channels: Number of channels of the group.
    """

    member: Member
    tensor: torch.Tensor
    channel: npt.NDArray[np.int64]
    channels: int

    @property
    def weight(self) -> torch.Tensor:
        """Return the parameter in double precision, without its gradient graph.

        Complex numbers become their absolute values, since a weight's size does not lie in its real
        part.
        """
        return self.values.abs() if self.tensor.is_complex() else self.values

    @property
    def values(self) -> torch.Tensor:
        """Return the parameter as `weight` does, with complex numbers as they are."""
        return precise(self.tensor.detach())

    def parts(self) -> Iterator[Place]:
        """Yield the parameter in parts of at most `MOST` numbers, as far as rows can be parted."""
        rows = max(1, MOST * len(self.tensor) // max(1, self.tensor.numel()))
        for first in range(0, len(self.tensor), rows):
            channel = self.channel[first : first + rows] if not self.member.dim else self.channel
            yield replace(self, tensor=self.tensor[first : first + rows], channel=channel)

    def totals_of(self, measure: Callable[[torch.Tensor], torch.Tensor]) -> Floats:
        """Sum what is measured of each weight per channel, [channels], part by part."""
        first, *others = (part.totals(measure(part.weight)) for part in self.parts())
        return sum(others, first)

    def totals(self, values: torch.Tensor) -> Floats:
        """Sum values of the parameter's shape per channel, [channels]."""
        others = [d for d in range(values.dim()) if d != self.member.dim]
        along = values.sum(others) if others else values
        return self.sums(along.cpu().double().numpy())

    def sums(self, along: Floats) -> Floats:
        """Sum values along the dimension, [positions], per channel, [channels]."""
        inside = self.channel >= 0
        found = np.bincount(self.channel[inside], along[inside], minlength=self.channels)
        return found.astype(np.float64)

    def vectors(self) -> torch.Tensor:
        """Return all numbers that the parameter has of each channel, [channels, numbers]."""
        order = np.argsort(self.channel, kind="stable")
        order = order[self.channel[order] >= 0]
        is_complex = self.tensor.is_complex()
        values = torch.view_as_real(self.values) if is_complex else self.values
        rows = values.movedim(self.member.dim, 0)[torch.from_numpy(order)]
        return rows.reshape(self.channels, -1)


def places(network: Network, tensors: Mapping[str, torch.Tensor]) -> dict[str, list[Place]]:
    """Return for each group its parameters among `tensors`, producers of its channels first."""
    return {
        group.name: [
            Place(
                member,
                tensors[member.tensor],
                coordinates(network.tensors[member.tensor][member.dim], network.axes[group.name]),
                group.size,
            )
            for member in sorted(group.members, key=lambda m: m.contracted)
            if member.tensor in tensors
        ]
        for group in network.groups
    }
