"""Let a module whose code cannot follow run its own traced operators instead.

It keeps its parameters, their names and its place in the user's class; only its `forward` is
replaced by the part of the sliced program that was traced from it.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any, Self

import torch
from torch import nn
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from compressor.errors import CompressorError
from compressor.slicing.part import Part
from compressor.slicing.running import set_training
from compressor.slicing.wiring import Wiring


class StandIn(nn.Module):
    """The class of a module that runs its traced operators."""

    _part: Part
    _wiring: Wiring
    _traced: GraphModule

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute what the original does, for inputs of the traced shapes (any batch).

        Raises:
            CompressorError: An input has another shape than the traced one.
        """
        given = _tensors_of(args, kwargs)
        inputs = self._part.complete(
            [None if at is None else given[at] for at in self._wiring.arguments]
        )
        for tensor, shape in zip(inputs, self._part.shapes, strict=True):
            self._check(tensor, shape)
        own = [operator.attrgetter(name)(self) for name in self._part.tensors]
        result = self._traced(*own, *inputs)
        return self._wiring.give_back(result, given)

    @staticmethod
    def _check(tensor: torch.Tensor, shape: tuple[int | None, ...]) -> None:
        if len(shape) != tensor.dim() or any(
            wanted not in (None, size) for wanted, size in zip(shape, tensor.shape, strict=True)
        ):
            raise CompressorError(
                f"a layer was traced for inputs of shape {list(shape)}, not {list(tensor.shape)}",
                consequence="it computes nothing",
                next_step="compress the model again with example inputs of this size (--input)",
            )

    def train(self, mode: bool = True) -> Self:
        """Switch the operators between training and evaluation."""
        set_training(self._traced, mode)
        return super().train(mode)


class Passing(nn.Module):
    """A module all of whose operators are gone: it hands on what it is given."""

    def __init__(self, wiring: Wiring, gone: nn.Module) -> None:
        """Build the module that stands where another was.

        Its attributes that are no tensors are the other's, and its parameters are None, since the
        code around may read them (a transformer block asks its attention for `batch_first`).

        Args:
            wiring: Which of the call's tensors is handed on, and how it is returned.
            gone: The module whose place it takes.
        """
        super().__init__()
        for name, value in vars(gone).items():
            if name not in vars(self) and not isinstance(value, torch.Tensor):
                setattr(self, name, value)
        for name, _ in gone.named_parameters(recurse=False):
            self.register_parameter(name, None)
        self.wiring = wiring
        self.register_forward_pre_hook(_no_fast_path)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return one of the tensors that are given, as the original returned its result."""
        (position,), given = self.wiring.arguments, _tensors_of(args, kwargs)
        assert position is not None
        return self.wiring.give_back(self._replace(given[position]), given)

    @staticmethod
    def _replace(tensor: torch.Tensor) -> torch.Tensor:
        """Return what the result is, for the tensor that is handed on."""
        return tensor


class Muted(Passing):
    """A module all of whose operators are gone: it gives zeros as large as what it is given."""

    @staticmethod
    def _replace(tensor: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(tensor)


def install(module: nn.Module, path: str, part: Part, wiring: Wiring) -> None:
    """Let a layer run its part of the program from now on; its class is replaced in place.

    Args:
        module: The network.
        path: Where the layer is in it.
        part: Its traced operators.
        wiring: How its call meets them.
    """
    layer = module.get_submodule(path)
    layer.__class__ = StandIn
    layer._part, layer._wiring = part, wiring  # type: ignore[assignment]
    layer._traced = part.operators
    layer.register_forward_pre_hook(_no_fast_path)
    for around in _containers_of(module, path):
        if isinstance(around, nn.TransformerEncoder):
            around.use_nested_tensor = False  # whose layers get tensors without shapes


def _containers_of(module: nn.Module, path: str) -> Iterator[nn.Module]:
    """Yield the modules that a path leads through, the network first."""
    names = path.split(".")
    yield from (module.get_submodule(".".join(names[:count])) for count in range(len(names)))


def _tensors_of(args: Any, kwargs: Any) -> list[torch.Tensor]:
    """Return the tensors that a call is given, in the order in which a wiring counts them."""
    return [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]


def _no_fast_path(*_: Any) -> None:
    """Do nothing, as a hook whose presence makes a transformer block call the layer.

    Without a hook the block reads the layer's parameters for a fused kernel that computes the
    original's shapes.
    """
