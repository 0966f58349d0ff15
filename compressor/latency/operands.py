"""Show a node to the readers: its tensors as dimensions, its other arguments by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import Node
from torch.fx.node import map_arg

from compressor.graph.network import Shape, size_of
from compressor.graph.programs.nodes import argument, operand, schema_names


@dataclass(frozen=True)
class Reading:
    """A node as a call of a kernel, which is what its time depends on.

    Attributes:
        kind: A row of `kernels.KERNELS`.
        sizes: By name products of dimensions, as tuples, or pairs of such (the second divides).
        literals: Numbers and words that no pruning changes.
    """

    kind: str
    sizes: Mapping[str, Any]
    literals: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Operands:
    """A node as a reader sees it.

    Attributes:
        node: The program's node.
        shapes: The dimensions of every node's results, by the node's name.
        within: The names of the operators that the runtime does within it.
    """

    node: Node
    shapes: Mapping[str, tuple[Shape, ...]]
    within: tuple[str, ...] = ()

    def shape(self, name: str) -> Shape:
        """Return a tensor argument's dimensions, () for none; "tensors.1" is a list's second."""
        source = operand(self.node, name)
        return next(iter(self.shapes.get(source.name, ())), ()) if source else ()

    @property
    def x(self) -> Shape:
        """The dimensions of the first tensor argument."""
        return next(iter(self.shapes.get(self.node.all_input_nodes[0].name, ())), ())

    @property
    def out(self) -> Shape:
        """The dimensions of the first result."""
        return next(iter(self.shapes.get(self.node.name, ())), ())

    def get(self, name: str, default: Any = None) -> Any:
        """Return any other argument of the node, or a default.

        Sizes that the network computes become numbers, with `BATCH` for a free batch.
        """
        value = argument(self.node, name) if name in schema_names(self.node) else None
        return default if value is None else map_arg(value, _number)

    def numbers(self, name: str, rank: int, default: Any = 1) -> tuple[int, ...]:
        """Return an argument that is a list of `rank` numbers, which may be given as one."""
        value = self.get(name, default)
        listed = list(value) if isinstance(value, list | tuple) else [value]
        return tuple(int(n) for n in (listed * rank if len(listed) == 1 else listed or [default]))


def _number(node: Node) -> Any:
    value = node.meta.get("val")
    return size_of(value) if isinstance(value, int | torch.SymInt) else node


Reader = Callable[[Operands], Reading | None]
