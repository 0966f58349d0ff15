"""Convert a network in half or double precision to float32 for the work, and back afterwards.

Each tensor is given back in the type that it came in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from compressor.memory_pages import mapped_files
from compressor.on_demand import OnDemand, exchange, on_demand, parameters_on_demand

Types = Mapping[str, torch.dtype]
"""Name of a tensor -> its own type, for tensors that are converted for the work."""

COMPUTED_IN: Mapping[torch.dtype, torch.dtype] = {
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
    torch.float64: torch.float32,
    torch.complex32: torch.complex64,
    torch.complex128: torch.complex64,
}
WIDE = {torch.float64, torch.complex128}


def types_of(module: nn.Module) -> dict[str, torch.dtype]:
    """Return the types of the parameters and buffers that have to be converted for the work.

    A network is in a type where its parameters are: a float32 network may have buffers in others,
    which are its own business. It is in double precision only where all of it is.
    """
    parameters = {p.dtype for p in module.parameters() if p.is_floating_point() or p.is_complex()}
    narrow = (parameters & COMPUTED_IN.keys()) - WIDE
    its = parameters if parameters <= WIDE else narrow
    return {name: t.dtype for name, t in _tensors(module) if t.dtype in its}


def work_in_float32(module: nn.Module, types: Types | None = None) -> None:
    """Convert a network's tensors to float32 (complex64), in place.

    The types that a traced program's operators name are replaced likewise.

    Args:
        module: The network.
        types: The types of the tensors that are to be converted; default `types_of` the module.
    """
    types = types_of(module) if types is None else types
    named = dict(_tensors(module))
    _convert(module, {n: COMPUTED_IN[its] for n, its in types.items() if named[n].dtype == its})
    _respell(module, {dtype: COMPUTED_IN[dtype] for dtype in types.values()})


def waiting_in_float32(module: nn.Module) -> dict[int, nn.Parameter]:
    """Return parameters that a network can work on in float32 while its own stay where they are.

    Returns:
        Id of a parameter of floating point -> what reads its numbers on demand.
    """
    files = mapped_files()
    return {
        id(each): on_demand(each, COMPUTED_IN.get(each.dtype, each.dtype), files)
        for each in module.parameters()
        if each.is_floating_point() or each.is_complex()
    }


def give_back_types(module: nn.Module, types: Types) -> None:
    """Convert a network's tensors to the types by name, in place.

    A module that runs traced operators computes in the commonest of the types.
    """
    _convert(module, types)
    if types:
        (common, _), *_ = Counter(types.values()).most_common(1)
        _respell(module, {COMPUTED_IN[common]: common})


def _convert(module: nn.Module, types: Types) -> None:
    waiting = parameters_on_demand(module)
    exchange(module, {id(t): t.in_type(types[n]) for n, t in waiting.items() if n in types})
    for name, tensor in _tensors(module):
        if name in types and name not in waiting:
            tensor.data = tensor.data.to(types[name])


def round_to(module: nn.Module, types: Types) -> None:
    """Round a network's tensors, in place, to the values that they can have in these types."""
    with torch.no_grad():
        for name, tensor in _tensors(module):
            if name in types and not isinstance(tensor, OnDemand):  # whose numbers are in theirs
                tensor.copy_(tensor.to(types[name]))


def widen(value: Any) -> Any:
    """Convert tensors in nested inputs to the type that the work is done in (float32)."""
    return pytree.tree_map(
        lambda leaf: leaf.to(COMPUTED_IN.get(leaf.dtype, leaf.dtype)) if _is(leaf) else leaf, value
    )


def narrow(value: Any, types: Types) -> Any:
    """Convert nested inputs from the type of the work to the network's commonest type."""
    (common, _), *_ = Counter(types.values()).most_common(1)
    worked = COMPUTED_IN[common]
    return pytree.tree_map(
        lambda leaf: leaf.to(common) if _is(leaf) and leaf.dtype == worked else leaf, value
    )


def name_of(types: Types) -> str:
    """Return the types in words, the commonest first; "float32" where there are none."""
    counted = Counter(str(dtype).removeprefix("torch.") for dtype in types.values())
    return " and ".join(name for name, _ in counted.most_common()) or "float32"


def types_named(names: Mapping[str, str]) -> dict[str, torch.dtype]:
    """Turn names of types, as a plan holds them, into types."""
    return {name: getattr(torch, dtype) for name, dtype in names.items()}


def _is(leaf: Any) -> bool:
    return isinstance(leaf, Tensor)


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _respell(module: nn.Module, types: Mapping[torch.dtype, torch.dtype]) -> None:
    """Replace the types that operators of traced parts name, in place."""
    for part in module.modules():
        if isinstance(part, GraphModule):
            for node in part.graph.nodes:
                node.args, node.kwargs = pytree.tree_map(
                    lambda leaf: types.get(leaf, leaf) if isinstance(leaf, torch.dtype) else leaf,
                    (node.args, node.kwargs),
                )
            part.recompile()
