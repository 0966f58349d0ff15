"""Slice the exported program: tensors by index, literals from the solved dimensions."""

from __future__ import annotations

import copy
import operator
import sys
from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule, Node

from compressor.graph.axes import Axis, Bools, Product, Sum, keep_mask, size_after
from compressor.graph.network import BATCH, Network, Spelling
from compressor.graph.programs.lifting import stored_names
from compressor.graph.programs.nodes import argument, set_argument
from compressor.graph.programs.rebuilding import rebuild
from compressor.on_demand import OnDemand
from compressor.records import Trace
from compressor.slicing.propagation import propagate, rename_ranges

Indices = dict[str, dict[int, tuple[int, ...]]]
"""Tensor name -> dimension -> kept indices, for the dimensions that shrink."""

OPEN = {"size": -1, "shape": -1, "sizes": -1, "end": sys.maxsize}
"""Argument -> the literal that already means "whatever is there"."""

PLACES = ("start", "end")
"""Arguments that may be counted from the end: they change with what lies behind them."""


def kept_indices(network: Network, masks: Mapping[Axis, Bools]) -> Indices:
    """Return which positions of which tensors stay, for the dimensions that shrink."""
    found: Indices = {}
    for name, shape in network.tensors.items():
        for i, dim in enumerate(shape):
            mask = keep_mask(dim, masks)
            if not mask.all():
                found.setdefault(name, {})[i] = tuple(int(j) for j in mask.nonzero()[0])
    return found


def slice_tensor(tensor: torch.Tensor, kept: Mapping[int, tuple[int, ...]]) -> torch.Tensor:
    """Return the kept positions of every listed dimension.

    The tensor has memory of its own, unless it is on demand, as the given one then is.
    """
    if isinstance(tensor, OnDemand):
        return tensor.keeping(kept)
    sliced = tensor.detach()
    for dim, indices in kept.items():
        sliced = sliced.index_select(dim, torch.tensor(indices, device=tensor.device))
    return sliced.clone() if sliced is tensor or not kept else sliced.contiguous()


def slice_program(
    trace: Trace,
    network: Network,
    masks: Mapping[Axis, Bools],
    indices: Indices | None = None,
    *,
    only_to_run: bool = False,
) -> ExportedProgram:
    """Build a new program without the dropped positions; the traced one is not changed.

    Args:
        trace: The traced network.
        network: Its analysis.
        masks: Axis -> which of its indices are kept, [size] bool.
        indices: `kept_indices` of the masks, where they are known.
        only_to_run: Whether the program is run and thrown away: its nodes need not say what they
            yield, which takes longer to find than all the rest.

    Raises:
        CompressorError: The sliced program does not fit together (a wrong rule).
    """
    program = trace.program
    indices = kept_indices(network, masks) if indices is None else indices
    state = _slice_tensors(program.state_dict, indices, network.aliases, trace.learning)
    constants = _slice_tensors(program.constants, indices, network.aliases, trace.learning)
    sizes = {axis: int(mask.sum()) for axis, mask in masks.items()}
    graph = copy_graph(program.graph)
    symbol = _symbol_of(graph, trace.batch_symbol)
    for node in list(graph.nodes):
        if node.name in network.nodes:
            _respell(node, network.nodes[node.name], sizes, symbol)
    module = GraphModule(program.graph_module, graph)
    stored = {**state, **constants}
    tensors = {n: stored[name] for n, name in stored_names(program).items() if name in stored}
    ranges = program.range_constraints
    if not only_to_run:
        propagate(module, program, tensors)
        graph.lint()
        ranges = rename_ranges(graph, ranges)
    return rebuild(program, module=module, state=state, constants=constants, ranges=ranges)


def copy_graph(graph: Graph) -> Graph:
    """Return a copy of a graph with the same node names."""
    copied: Graph = copy.deepcopy(graph)
    # `deepcopy` alone renames nodes named like builtins ("input")
    for node, original in zip(copied.nodes, graph.nodes, strict=True):
        node.name = original.name
    return copied


def _slice_tensors(
    tensors: Mapping[str, Any],
    indices: Indices,
    aliases: Mapping[str, str],
    learning: Collection[str],
) -> dict[str, Any]:
    """Slice every tensor once; tied names get the same tensor again.

    The parameters named in `learning` learn, and no others.
    """
    sliced: dict[str, Any] = {}
    for name, tensor in tensors.items():
        stored = aliases.get(name, name)
        if stored in sliced:
            sliced[name] = sliced[stored]
        elif isinstance(tensor, torch.nn.Parameter):
            data = slice_tensor(tensor, indices.get(name, {}))
            sliced[name] = torch.nn.Parameter(data, name in learning)
        elif isinstance(tensor, torch.Tensor):
            sliced[name] = slice_tensor(tensor, indices.get(name, {}))
        else:
            sliced[name] = tensor
    return sliced


# -- literals ----------------------------------------------------------------------------------


def _respell(
    node: Node, spelling: Spelling, sizes: Mapping[Axis, int], symbol: Callable[[], Node]
) -> None:
    """Give the node the literals of the new sizes, in place, if any of them changed."""
    shrunk = any(size_after(dim, sizes) != dim.size for shape in spelling.outputs for dim in shape)
    if spelling.target:
        if shrunk:
            _retarget(node, spelling, sizes)
        return
    for name, spelled in spelling.literals.items():
        old = argument(node, name)
        if isinstance(spelled, tuple):
            if isinstance(old, list | tuple):
                new = [
                    _literal(node, name, o, d, sizes, symbol)
                    for o, d in zip(old, spelled, strict=True)
                ]
                if new != list(old):
                    set_argument(node, name, new)
        elif (new := _literal(node, name, old, spelled, sizes, symbol)) is not old:
            set_argument(node, name, new)
    for name, (value, dim) in spelling.pins.items():
        if size_after(dim, sizes) != dim.size:
            size = size_after(value, sizes) if isinstance(value, Axis | Product | Sum) else value
            set_argument(node, name, size)


def _literal(
    node: Node,
    name: str,
    old: Any,
    spelled: Any,
    sizes: Mapping[Axis, int],
    symbol: Callable[[], Node],
) -> Any:
    new = spelled if isinstance(spelled, int) else size_after(spelled, sizes)
    before = spelled if isinstance(spelled, int) else spelled.size
    # what is counted from the end names a place as counted from the start; half of BATCH is none
    is_from_end = name in PLACES and isinstance(old, int) and old < 0 and new < BATCH // 2
    if (new == before and not is_from_end) or old is None or old == OPEN.get(name, object()):
        return old
    factor, rest = divmod(new, BATCH)
    if not factor:
        return rest
    with node.graph.inserting_before(node):
        grown = node.graph.call_function(operator.mul, (symbol(), factor))
        _describe(grown, node, symbol().meta["val"] * factor)
        if not rest:
            return grown
        total = node.graph.call_function(operator.add, (grown, rest))
        _describe(total, node, grown.meta["val"] + rest)
        return total


def _describe(made: Node, reader: Node, value: Any) -> None:
    """Say of a new node, in place, what it yields, and that it belongs to its reader's module."""
    made.meta |= {"nn_module_stack": reader.meta.get("nn_module_stack", {}), "val": value}


def _retarget(node: Node, spelling: Spelling, sizes: Mapping[Axis, int]) -> None:
    namespace, name, overload = spelling.target.split(".")
    target = getattr(getattr(getattr(torch.ops, namespace), name), overload)

    def spell(value: Any) -> Any:
        if isinstance(value, tuple):
            return [spell(item) for item in value]
        return value if isinstance(value, int) else size_after(value, sizes)

    arguments = {key: spell(value) for key, value in spelling.literals.items()}
    first = target._schema.arguments[0].name
    arguments.setdefault(first, node.args[0])
    node.target = target
    node.args = tuple(arguments[a.name] for a in target._schema.arguments if a.name in arguments)
    node.kwargs = {}


def _symbol_of(graph: Graph, batch_symbol: str | None) -> Callable[[], Node]:
    """Return a function that makes, once, a node after the inputs that holds the batch's size."""

    @cache
    def symbol() -> Node:
        inputs = [node for node in graph.nodes if node.op == "placeholder"]
        source = next(node for node in inputs if str(_leading(node)) == batch_symbol)
        with graph.inserting_after(inputs[-1]):
            size = graph.call_function(torch.ops.aten.sym_size.int, (source, 0))
        size.meta["val"] = _leading(source)
        return size

    return symbol


def _leading(node: Node) -> Any:
    value = node.meta.get("val")
    return value.shape[0] if isinstance(value, torch.Tensor) and value.dim() else None
