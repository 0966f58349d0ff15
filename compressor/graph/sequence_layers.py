"""Tell from a program's operators whether a network has attention or recurrent layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule, Node

from compressor.graph.programs.nodes import base_name, operator_of
from compressor.graph.rules import recurrent
from compressor.graph.rules.facts import WEIGHING

RECURRENT = frozenset(name.partition(".")[0] for name in recurrent.RULES)
ATTENTION = frozenset(
    {"scaled_dot_product_attention", "_native_multi_head_attention", "flex_attention"}
)
PRODUCTS = frozenset({"matmul", "bmm", "baddbmm", "einsum"})
SOFTMAX = frozenset({"softmax", "_softmax", "_safe_softmax"})


def sequence_layers(program: ExportedProgram) -> str:
    """Return "recurrent layers" or "attention" where a program has such layers, else "".

    Attention is an operator of that name, or a softmax of a product of two activations that weighs
    an activation in a further product; layers with weights of their own lie nowhere in between.
    """
    graphs = [m.graph for m in program.graph_module.modules() if isinstance(m, GraphModule)]
    names = {base_name(node) for graph in graphs for node in graph.nodes}
    if names & RECURRENT:
        return "recurrent layers"
    given = {*program.graph_signature.user_inputs}
    if names & ATTENTION or any(_weighs_by_softmax(graph, given) for graph in graphs):
        return "attention"
    return ""


def _weighs_by_softmax(graph: Graph, given: set[str]) -> bool:
    softmaxes = [node for node in graph.nodes if base_name(node) in SOFTMAX]
    if not softmaxes:
        return False
    active = _activations(graph, given)

    def is_product(node: Node) -> bool:
        factors = [source for source in node.all_input_nodes if source in active]
        return base_name(node) in PRODUCTS and len(factors) > 1

    return any(
        _reaches(node, lambda n: [s for s in n.all_input_nodes if s in active], is_product)
        and _reaches(node, lambda n: n.users, is_product)
        for node in softmaxes
    )


def _activations(graph: Graph, given: set[str]) -> set[Node]:
    """Return the nodes that depend on the network's inputs; in an inner graph, on any of its."""
    inputs = [n for n in graph.nodes if n.op == "placeholder"]
    active = {n for n in inputs if n.name in given} or {*inputs}
    for node in graph.nodes:
        if active.intersection(node.all_input_nodes):
            active.add(node)
    return active


def _reaches(
    start: Node, following: Callable[[Node], Iterable[Node]], is_wanted: Callable[[Node], bool]
) -> bool:
    """Return whether a way leads to a wanted node with no layer that has weights in between."""
    todo, seen = [*following(start)], {start}
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        if is_wanted(node):
            return True
        if operator_of(node) not in WEIGHING or base_name(node) == "matmul":
            todo += following(node)
    return False
