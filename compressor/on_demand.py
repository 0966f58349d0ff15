"""Hold tensors whose numbers lie elsewhere in another type, and are converted where they are read.

A large network in half precision is worked on in float32. Kept on demand, its tensors stay where
they were loaded (in the memory-mapped files of its folder, which the system drops when it needs the
room), and whatever reads one converts that one, for as long as it takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.memory_pages import give_pages_back, lies_in

_aten = torch.ops.aten
_SAME = {_aten.detach.default, _aten.alias.default, _aten.slice.Tensor}
"""Operators whose result is the tensor itself, or a part of it, still on demand."""

_CHOOSING = {
    *(_aten.embedding.default, _aten.index_select.default),
    *(_aten.max.default, _aten.min.default),
}
"""Operators that only take some of a tensor's numbers: these alone are converted, afterwards."""


class OnDemand(Tensor):
    """A tensor that reads as if it were converted already. It cannot be written to.

    Attributes:
        held: The numbers in their own type, which nobody may change.
        is_mapped: Whether they lie in a mapped file.
    """

    held: Tensor
    is_mapped: bool

    @staticmethod
    def __new__(cls, held: Tensor, dtype: torch.dtype, *, is_mapped: bool = False) -> Self:
        """Make a tensor of the type `dtype` from the numbers in `held`."""
        made: Self = Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), dtype=dtype, device=held.device
        )
        made.held, made.is_mapped = held.detach(), is_mapped
        return made

    def __init__(self, held: Tensor, dtype: torch.dtype, *, is_mapped: bool = False) -> None:
        """Do nothing: all is done when the tensor is made."""

    def read(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return the numbers in memory of their own, in the tensor's type or a wider one."""
        found = self.held.to(dtype or self.dtype, copy=True)
        self.let_go()
        return found

    def let_go(self) -> None:
        """Let the system have the memory that reading the numbers took."""
        if self.is_mapped:
            give_pages_back(self.held)

    def again(self, held: Tensor) -> OnDemand:
        """Return another tensor on demand of the same numbers, or of some of them."""
        return OnDemand(held, self.dtype, is_mapped=self.is_mapped and held.is_contiguous())

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Return a tensor on demand of the same numbers, which no copy can change."""
        if id(self) not in memo:
            memo[id(self)] = _like(self, self.again(self.held))
        return memo[id(self)]

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operator on converted numbers.

        Raises:
            RuntimeError: It would write to the tensor.
        """
        kwargs = kwargs or {}
        if args and isinstance(args[0], OnDemand):
            first, rest = args[0], args[1:]
            if func in _SAME:
                return first.again(func(first.held, *rest, **kwargs))
            if func in _CHOOSING:
                found = func(first.held, *rest, **kwargs).to(first.dtype)
                first.let_go()
                return found
            if func is _aten.clone.default:
                return first.read()
            if func is _aten._to_copy.default and kwargs.keys() == {"dtype"}:
                return first.read(_wider(first, kwargs["dtype"])).to(kwargs["dtype"])
        _refuse_writing(func, args, kwargs)
        read = pytree.tree_map_only(OnDemand, OnDemand.read, (args, kwargs))
        return func(*read[0], **read[1])


def _refuse_writing(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    for place, argument in enumerate(func._schema.arguments):
        given = args[place] if place < len(args) else kwargs.get(argument.name)
        alias = argument.alias_info
        writes = alias is not None and alias.is_write
        if writes and any(isinstance(g, OnDemand) for g in pytree.tree_leaves(given)):
            raise RuntimeError(f"{func} would write to a tensor that is kept on demand")


def _wider(tensor: OnDemand, dtype: torch.dtype) -> torch.dtype:
    """Return a type to convert to at once, if that rounds no otherwise than the tensor's own."""
    steps = pairwise((tensor.held.dtype, tensor.dtype, dtype))
    return dtype if all(torch.promote_types(*step) == step[1] for step in steps) else tensor.dtype


def _like(old: Tensor, new: Tensor) -> Tensor:
    """Return a tensor as the parameter that `old` is, if it is one."""
    return nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new


def on_demand(
    parameter: nn.Parameter, dtype: torch.dtype, files: Sequence[range] = ()
) -> nn.Parameter:
    """Return a parameter that reads as the given one converted, and holds nothing more.

    Args:
        parameter: What holds the numbers.
        dtype: The type that it is read in.
        files: Where files are mapped (`mapped_files`).
    """
    is_mapped = lies_in(parameter, files)
    waiting = OnDemand(parameter.detach(), dtype, is_mapped=is_mapped)
    waiting.let_go()  # it has been read before, to be checked and hashed
    made = _like(parameter, waiting)
    assert isinstance(made, nn.Parameter)
    return made


def memory_of(tensor: Tensor) -> int:
    """Return the address of the memory in which a tensor's numbers lie; 0 where it has none."""
    if isinstance(tensor, OnDemand):
        return tensor.held.data_ptr()  # files that are mapped are one memory for many tensors
    return tensor.untyped_storage().data_ptr()


def parameters_on_demand(module: nn.Module) -> dict[str, OnDemand]:
    """Return the parameters of a module that are kept on demand, by all their names."""
    named = module.named_parameters(remove_duplicate=False)
    return {name: tensor for name, tensor in named if isinstance(tensor, OnDemand)}


def exchange(module: nn.Module, others: Mapping[int, Tensor]) -> None:
    """Put other parameters in the place of a module's own, in place.

    Args:
        module: The network.
        others: Id of a parameter -> what takes its place, wherever the parameter is.
    """
    for layer in module.modules():
        for name, tensor in layer._parameters.items():
            if tensor is not None and id(tensor) in others:
                layer._parameters[name] = others[id(tensor)]  # type: ignore[assignment]


def read_all(module: nn.Module) -> None:
    """Convert all parameters on demand of a module once and for all, in place."""
    read = {
        id(tensor): _like(tensor, tensor.read()) for tensor in parameters_on_demand(module).values()
    }
    exchange(module, read)
