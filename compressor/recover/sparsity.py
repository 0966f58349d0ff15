"""Learn sparsity: make channels that matter little matter even less before they are cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compressor.graph.axes import coordinates
from compressor.graph.network import Network
from compressor.records import Group, Member

SPREAD = 4.0
"""The weakest channel of a group is pressed 2 to this power times as hard as the strongest."""


@dataclass
class _Place:
    """A parameter's dimension that belongs to a group.

    Attributes:
        parameter: The parameter.
        dim: The dimension.
        channel: The group's channel at each position, [size of dim]; the number of channels where
            there is none.
    """

    parameter: nn.Parameter
    dim: int
    channel: Tensor

    def squares(self, channels: int) -> Tensor:
        """Return the sum of squares per channel, [channels]."""
        across = [d for d in range(self.parameter.ndim) if d != self.dim]
        rows = self.parameter.square().sum(across) if across else self.parameter.square()
        return rows.new_zeros(channels + 1).index_add(0, self.channel, rows)[:channels]


class GroupSparsity:
    """A penalty on squared weights that presses hardest on the weak channels of each group.

    It is 0.5·strength·Σ_k γ_k·Σw² over the channels k of all groups, with the sum over all weights
    that make or consume a channel. γ_k is 2^`SPREAD` for the channel with the smallest sum of its
    group, falling to 1 for that with the largest (Fang et al. 2023, DepGraph, section 3.3, equation
    4). The factors γ are computed anew as each epoch begins.

    Args:
        network: The network's analysis.
        module: The network that is trained, on the device where it is; its parameters have the
            network's names.
        groups: Those of the network's groups that may be cut.
        strength: Weight of the penalty: 1e-4 is a weak one.
    """

    def __init__(
        self, network: Network, module: nn.Module, groups: Sequence[Group], strength: float
    ) -> None:
        self.strength = strength
        parameters = dict(module.named_parameters(remove_duplicate=False))

        def places(group: Group) -> list[_Place]:
            known = [member for member in group.members if member.tensor in parameters]
            return [
                _Place(parameters[m.tensor], m.dim, _channels_of(network, group, m)) for m in known
            ]

        self.groups = [(group.size, placed) for group in groups if (placed := places(group))]
        self.factors: list[Tensor] = []

    def begin_epoch(self) -> None:
        """Compute the channels' factors anew from the present weights."""
        with torch.no_grad():
            self.factors = [_factors(squares) for squares in self._squares()]

    def __call__(self) -> Tensor:
        """Return the penalty of the present weights, a scalar."""
        terms = [
            (factors * squares).sum()
            for factors, squares in zip(self.factors, self._squares(), strict=True)
        ]
        return 0.5 * self.strength * torch.stack(terms).sum()

    def _squares(self) -> list[Tensor]:
        for _, places in self.groups:
            for place in places:
                place.channel = place.channel.to(place.parameter.device)
        return [
            torch.stack([place.squares(size) for place in places]).sum(0)
            for size, places in self.groups
        ]


def _channels_of(network: Network, group: Group, member: Member) -> Tensor:
    dim = network.tensors[member.tensor][member.dim]
    places = coordinates(dim, network.axes[group.name])
    numbers = torch.as_tensor(places, dtype=torch.long)
    return torch.where(numbers < 0, group.size, numbers)


def _factors(squares: Tensor) -> Tensor:
    span = squares.max() - squares.min()
    weakness = (squares.max() - squares) / span if span > 0 else torch.zeros_like(squares)
    return 2.0 ** (SPREAD * weakness)
