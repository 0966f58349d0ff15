"""Inline regions that only set a mode (`torch.no_grad()`, autocast switched off).

Their operators become part of the surrounding graph, where rules can see them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import TensorArgument
from torch.fx import Graph, GraphModule, Node

Inlined = Callable[[tuple[Any, ...]], bool]

WRAPPERS: Mapping[str, tuple[int, Inlined]] = {
    "wrap_with_set_grad_enabled": (1, lambda mode: True),
    "wrap_with_autocast": (4, lambda mode: mode[2] is False),
}
"""Higher-order operator -> how many arguments set its mode, and whether that mode changes nothing
in an evaluation without autocast."""


def inline_regions(program: ExportedProgram) -> None:
    """Inline every region of the program, in place, nested ones too."""
    module = program.graph_module
    renamed: dict[str, str] = {}
    while region := next(filter(_is_inlined, module.graph.nodes), None):
        renamed |= _inline(module, region)
    for spec in program.graph_signature.output_specs:
        if isinstance(spec.arg, TensorArgument) and spec.arg.name in renamed:
            spec.arg = TensorArgument(name=renamed[spec.arg.name])
    if renamed:
        module.graph.eliminate_dead_code(is_impure_node=lambda node: node.op != "get_attr")
        module.graph.lint()
        module.recompile()


def _is_inlined(node: Node) -> bool:
    wrapper = WRAPPERS.get(getattr(node.target, "__name__", ""))
    return node.op == "call_function" and wrapper is not None and wrapper[1](node.args)


def _inline(module: GraphModule, region: Node) -> dict[str, str]:
    """Replace a region by copies of its nodes, in place.

    Returns:
        Name of each result before -> its name after.
    """
    at = WRAPPERS[region.target.__name__][0]  # type: ignore[union-attr]  # an operator
    source, operands = region.args[at], region.args[at + 1 :]
    assert isinstance(source, Node)
    inner: GraphModule = getattr(module, str(source.target))
    copies = dict(zip(inner.graph.find_nodes(op="placeholder"), operands, strict=True))
    results: tuple[Any, ...] = ()
    for node in inner.graph.nodes:
        if node.op == "output":
            results = torch.fx.map_arg(node.args[0], lambda n: copies[n])
        elif node.op != "placeholder":
            with module.graph.inserting_before(region):
                copies[node] = _copy_node(module, module.graph, inner, node, copies)
    renamed: dict[str, str] = {}
    for user in list(region.users):
        assert user.target is operator.getitem
        result = results[int(user.args[1])]  # type: ignore[arg-type]
        user.replace_all_uses_with(result)
        renamed[user.name] = result.name
        module.graph.erase_node(user)
    module.graph.erase_node(region)
    if not source.users:
        module.graph.erase_node(source)
    return renamed


def _copy_node(
    module: GraphModule, graph: Graph, inner: GraphModule, node: Node, copies: Mapping[Node, Any]
) -> Node:
    copied = graph.node_copy(node, lambda n: copies[n])
    if node.op == "get_attr":
        name = f"{node.target}_of_{copied.name}"
        setattr(module, name, getattr(inner, str(node.target)))
        copied.target = name
    return copied
