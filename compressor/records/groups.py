"""Records of what is coupled in a network, and of what stays whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Member:
    """One place that loses positions with its group: a dimension of a parameter or buffer.

    Attributes:
        tensor: Name of the parameter or buffer.
        dim: The dimension.
        contracted: Whether the dimension is summed over, so that the tensor consumes the channels.
    """

    tensor: str
    dim: int
    contracted: bool


@dataclass(frozen=True)
class Group:
    """The coupled channels of one axis: removing index j removes it in every member.

    Attributes:
        name: The producer's tensor and dimension ("conv1.weight:0"), and the role if it is
            another than "channels".
        size: Number of channels.
        role: "channels", "heads", "head_width", "experts" (a router chooses some of them for each
            row) or "stream" (crosses a cross-channel statistic).
        members: The places that lose positions.
        exact: Whether zeros in the contracted members compute what dropping computes.
        least: Number of channels without which the network cannot run.
        step: Number of whose multiples its width must be.
    """

    name: str
    size: int
    role: str
    members: tuple[Member, ...]
    exact: bool = True
    least: int = 1
    step: int = 1

    @property
    def producer(self) -> Member:
        """Return the first member that makes the channels, after which the group is named."""
        return producer(self.members)

    @property
    def layer(self) -> str:
        """Return the path of the producer's module; a parameter of the model is its own layer."""
        return self.producer.tensor.rpartition(".")[0] or self.producer.tensor


def producer(members: Sequence[Member]) -> Member:
    """Return the first member that is not summed over here, or the first one where all are."""
    return next((member for member in members if not member.contracted), members[0])


@dataclass(frozen=True)
class Protection:
    """Positions that stay, and why.

    Attributes:
        tensors: The parameters' dimensions that it reaches ("conv1.weight:1").
        size: Number of positions.
        reason: Why they stay, in words.
        place: The layer and source line that asked for it.
    """

    tensors: tuple[str, ...]
    size: int
    reason: str
    place: str
