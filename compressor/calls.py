"""Hold a call of a network: what it is given by position and by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


@dataclass(frozen=True)
class Call:
    """The inputs of a network as it takes them, `network(*args, **kwargs)`.

    They are of one sample, or of a batch whose tensors have the samples along dimension 0. A call
    is a pytree, whose leaves come in the order in which a program takes them.

    Attributes:
        args: Inputs by position.
        kwargs: Inputs by name.
        names: Names of the first inputs by position, as far as the network's forward tells them.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, inputs: Any) -> Call:
        """Make a call of inputs.

        Args:
            inputs: A call (returned as it is), anything that has `args` and `kwargs`, or a sequence
                of positional inputs.
        """
        if isinstance(inputs, Call):
            return inputs
        if hasattr(inputs, "args") and hasattr(inputs, "kwargs"):
            return cls(tuple(inputs.args), dict(inputs.kwargs))
        return cls(tuple(inputs))

    def to(self, network: Any) -> Any:
        """Call the network (anything that can be called), and return what it returns."""
        return network(*self.args, **self.kwargs)

    @property
    def leaves(self) -> list[Any]:
        """All inputs, flattened: positional ones first."""
        leaves: list[Any] = pytree.tree_leaves((self.args, dict(self.kwargs)))
        return leaves

    @property
    def samples(self) -> int:
        """How many samples the batch has; 1 where no tensor has dimensions.

        It is the size of dimension 0 of the first tensor that has one.
        """
        return next((len(x) for x in self.leaves if isinstance(x, Tensor) and x.dim()), 1)

    @property
    def plain(self) -> Any:
        """The inputs as people write them: a tuple by position, a dict by name, or a pair."""
        if not self.kwargs:
            return self.args
        return (self.args, dict(self.kwargs)) if self.args else dict(self.kwargs)

    @property
    def shapes(self) -> str:
        """The tensors' shapes in words, with the names that they have."""
        named = [("", value) for value in self.args]
        named += [(f"{name} ", value) for name, value in self.kwargs.items()]
        return ", ".join(
            name + ("x".join(map(str, leaf.shape)) or "a number")
            for name, value in named
            for leaf in pytree.tree_leaves(value)
            if isinstance(leaf, Tensor)
        )

    def map(self, change: Any) -> Call:
        """Return the same call with `change` applied to every tensor."""
        changed: Call = pytree.tree_map_only(torch.Tensor, change, self)
        return changed


def _children(call: Call) -> tuple[list[Any], tuple[str, ...]]:
    return [call.args, dict(call.kwargs)], call.names


def _of_children(children: Any, names: tuple[str, ...]) -> Call:
    args, kwargs = children
    return Call(args, kwargs, names)


def _named_children(call: Call) -> tuple[list[Any], tuple[str, ...]]:
    args, kwargs = _children(call)[0]
    return [(pytree.GetAttrKey("args"), args), (pytree.GetAttrKey("kwargs"), kwargs)], call.names


pytree.register_pytree_node(Call, _children, _of_children, flatten_with_keys_fn=_named_children)
