"""What a hand-made network of the zoo is: a factory, inputs, and the axes that can shrink."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.records import ExampleInputs

Maker = Callable[[int, torch.Generator], Tensor]
"""One input tensor, for a batch."""

Sizes = Mapping[str, tuple[int, ...]]
"""Role -> the sizes of its axes that can shrink."""


def net(forward: Callable[..., Any], **parts: Any) -> nn.Module:
    """A module of a class of its own: layers, parameters and numbers by name, and its forward."""
    module = type("Net", (nn.Module,), {"forward": forward})()
    for name, part in parts.items():
        setattr(module, name, part)
    return module


@dataclass(frozen=True)
class Member:
    """`prunable` is what the analysis must find, no more and no less."""

    build: Callable[[], nn.Module]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    prunable: Sizes

    def inputs(self, batch: int = 2, seed: int = 0) -> ExampleInputs:
        generator = torch.Generator().manual_seed(seed)
        args, kwargs = pytree.tree_map(
            lambda make: make(batch, generator), (self.args, dict(self.kwargs))
        )
        return ExampleInputs(args, kwargs)


MEMBERS: dict[str, Member] = {}


def member(
    *args: Any, keywords: Mapping[str, Any] | None = None, **prunable: int | tuple
) -> Callable[[Callable[[], nn.Module]], Callable[[], nn.Module]]:
    """Register a factory under its name, with makers of its inputs and the axes that can shrink:
    `channels=(6, 8)`, `heads=4`, `head_width=3`, `stream=12`.
    """
    sizes = {
        role: tuple(sorted(value)) if isinstance(value, tuple) else (value,)
        for role, value in prunable.items()
    }

    def register(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        assert build.__name__ not in MEMBERS
        MEMBERS[build.__name__] = Member(build, args, keywords or {}, sizes)
        return build

    return register


def real(*shape: int) -> Maker:
    """Normal values, [batch, *shape] float64."""
    return lambda batch, generator: torch.randn(
        batch, *shape, generator=generator, dtype=torch.float64
    )


def second(*shape: int) -> Maker:
    """The same with the batch in dimension 1, as recurrent layers have it by default."""
    return lambda batch, generator: torch.randn(
        shape[0], batch, *shape[1:], generator=generator, dtype=torch.float64
    )


def words(count: int, *shape: int) -> Maker:
    """Indices below `count`, [batch, *shape] int64."""
    return lambda batch, generator: torch.randint(count, (batch, *shape), generator=generator)
