"""Hold tensors whose numbers lie elsewhere in another type, and are converted where they are read.

A large network in half precision is worked on in float32. Kept on demand, its tensors stay where
they were loaded (in the memory-mapped files of its folder, which the system drops when it needs the
room), and whatever reads one converts that one, for as long as it takes. The smaller network's
tensors are the same numbers, of which it reads the positions that it keeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.memory_pages import give_pages_back, lies_in, take_large_pages

_aten = torch.ops.aten
_SAME = {_aten.detach.default, _aten.alias.default}
"""Operators whose result is the tensor itself, still on demand."""

_OF_ALL = {
    *(_aten.slice.Tensor, _aten.embedding.default, _aten.index_select.default),
    *(_aten.max.default, _aten.min.default),
}
"""Operators that only take some of a tensor's numbers: a part that is still on demand, or numbers
which alone are converted, afterwards. Where not all of the numbers are the tensor's, it is read."""

_AT_ONCE = 1 << 22
"""How many numbers are read at a time."""

_ALL: Mapping[int, Tensor] = MappingProxyType({})


class OnDemand(Tensor):
    """A tensor that reads as if it were converted and cut already. It cannot be written to.

    Attributes:
        held: The numbers in their own type, which nobody may change.
        kept: Dimension -> the positions that are the tensor's, [kept]; of others all are.
        is_mapped: Whether they lie in a mapped file.
    """

    held: Tensor
    kept: Mapping[int, Tensor]
    is_mapped: bool

    @staticmethod
    def __new__(
        cls,
        held: Tensor,
        dtype: torch.dtype,
        kept: Mapping[int, Tensor] = _ALL,
        *,
        is_mapped: bool = False,
    ) -> Self:
        """Make a tensor of the type `dtype` from the numbers in `held`."""
        sizes = [len(kept[dim]) if dim in kept else size for dim, size in enumerate(held.shape)]
        strides = None if kept else held.stride()
        made: Self = Tensor._make_wrapper_subclass(
            cls, sizes, strides=strides, dtype=dtype, device=held.device
        )
        made.held, made.kept, made.is_mapped = held.detach(), kept, is_mapped
        return made

    def __init__(self, *_: Any, **__: Any) -> None:
        """Do nothing: all is done when the tensor is made."""

    def read(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return the numbers in memory of their own, in the tensor's type or a wider one.

        Of what lies in a mapped file, no more than a part is in memory at a time.
        """
        dtype = dtype or self.dtype
        if not self.dim():
            return self.held.to(dtype, copy=True)
        found = torch.empty_like(self.held if not self.kept else self.hollow(), dtype=dtype)
        take_large_pages(found)
        count = max(1, _AT_ONCE * len(found) // max(1, found.numel()))
        for first in range(0, len(found), count):
            rows = slice(first, first + count)
            found[rows] = self._rows(rows)
            self.let_go()
        return found

    def _rows(self, rows: slice) -> Tensor:
        """Return some of the tensor's rows, in the type of what is held."""
        own = {**self.kept, 0: self.kept[0][rows]} if 0 in self.kept else self.kept
        found = self.held if 0 in self.kept else self.held[rows]
        for dim, positions in own.items():
            found = found.index_select(dim, positions)
        return found

    def let_go(self) -> None:
        """Let the system have the memory that reading the numbers took."""
        if self.is_mapped:
            give_pages_back(self.held)

    def again(self, held: Tensor) -> OnDemand:
        """Return another tensor on demand of the same numbers, or of some of them."""
        is_mapped = self.is_mapped and held.is_contiguous()
        return OnDemand(held, self.dtype, self.kept, is_mapped=is_mapped)

    def keeping(self, kept: Mapping[int, Sequence[int]]) -> OnDemand:
        """Return the tensor's numbers at some positions of some dimensions, still on demand."""
        chosen = {dim: torch.tensor(each, dtype=torch.int64) for dim, each in kept.items()}
        before = {dim: self.kept[dim][each] for dim, each in chosen.items() if dim in self.kept}
        in_all = dict(sorted({**self.kept, **chosen, **before}.items()))  # rows are read first
        return OnDemand(self.held, self.dtype, in_all, is_mapped=self.is_mapped)

    def in_type(self, dtype: torch.dtype) -> Tensor:
        """Return the tensor in another type, still on demand unless it is rounded on the way."""
        if not self._holds_all:
            return _like(self, self.read().to(dtype))
        return _like(self, OnDemand(self.held, dtype, self.kept, is_mapped=self.is_mapped))

    def hollow(self) -> Tensor:
        """Return a plain tensor as large, with any values: memory that nobody touches is none."""
        return torch.empty_strided(self.shape, self.stride(), dtype=self.dtype)

    @property
    def _holds_all(self) -> bool:
        """Return whether the tensor's type has all numbers of the type that they lie in.

        What they are converted to further they may then be converted to at once.
        """
        return torch.promote_types(self.held.dtype, self.dtype) == self.dtype

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
                return first.again(first.held)
            if func in _OF_ALL and not first.kept:
                found = func(first.held, *rest, **kwargs)
                if func is _aten.slice.Tensor:
                    return first.again(found)
                first.let_go()
                return found.to(first.dtype)
            if func is _aten.clone.default:
                return first.read()
            if func is _aten._to_copy.default and kwargs.keys() == {"dtype"}:
                dtype = kwargs["dtype"]
                return first.read(dtype) if first._holds_all else first.read().to(dtype)
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


def address_of(tensor: Tensor) -> int:
    """Return the address of a tensor's first number, wherever it lies; 0 where it has none."""
    return tensor.held.data_ptr() if isinstance(tensor, OnDemand) else tensor.data_ptr()


def memory_of(tensor: Tensor) -> int:
    """Return the address of the memory in which a tensor's numbers lie; 0 where it has none."""
    if isinstance(tensor, OnDemand):
        return address_of(tensor)  # files that are mapped are one memory for many tensors
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
    exchange(module, read_each(parameters_on_demand(module).values()))


def read_each(tensors: Iterable[Tensor]) -> dict[int, Tensor]:
    """Convert tensors that are on demand: id of each -> what it is in memory."""
    waiting = {id(each): each for each in tensors if isinstance(each, OnDemand)}
    return {key: _like(each, each.read()) for key, each in waiting.items()}
