"""Find whole layers of a list that can go: the items of a `ModuleList`, with all that they do.

A configuration says how many layers there are, not which branches each of them has.
"""

from __future__ import annotations

from collections.abc import Collection

from torch.export import ExportedProgram
from torch.fx import Node

from compressor.graph.blocks import Block
from compressor.graph.programs.lifting import stored_names
from compressor.graph.programs.nodes import ASSERTION, is_mutable, operator_of, paths_of, shape_of
from compressor.graph.rules.facts import WEIGHING
from compressor.source_lines import place_of

WHOLE = " (whole)"


def find_layers(program: ExportedProgram) -> tuple[Block, ...]:
    """Return the layers of a program that hand on one tensor as large as one that they are given.

    Without such a layer that tensor goes on to what follows. Their names are the layers' paths with
    `WHOLE`, since a block that is a part of a layer may be known by its path.
    """
    inside: dict[str, list[Node]] = {}
    for node in program.graph.nodes:
        for path in _items(node):
            inside.setdefault(path, []).append(node)
    stored = stored_names(program)
    layers = (_layer(path, nodes, stored) for path, nodes in inside.items())
    return tuple(layer for layer in layers if layer is not None)


def path_of_layer(name: str) -> str:
    """Return the path of the layer that a block of this name is."""
    return name.removesuffix(WHOLE)


def _items(node: Node) -> list[str]:
    """Return the paths of the items of lists of layers that an operator belongs to."""
    if node.op != "call_function" or node.target is ASSERTION:
        return []
    return [path for path in paths_of(node) if path.rpartition(".")[2].isdigit()]


def _layer(path: str, nodes: list[Node], stored: dict[str, str]) -> Block | None:
    own = set(nodes)
    given = {source for node in nodes for source in node.all_input_nodes} - own
    weights = {n for n in given if n.name in stored and _users(n) <= own}
    outputs = [node for node in nodes if _users(node) - own]
    if len(outputs) != 1 or any(map(is_mutable, nodes)):
        return None
    if not any(operator_of(node) in WEIGHING for node in nodes):
        return None
    stream = _first_alike(nodes, outputs[0], given)
    if stream is None:
        return None
    names = frozenset(node.name for node in own | weights)
    tensors = frozenset(stored[node.name] for node in weights)
    ends = outputs[0].name, stream.name, outputs[0].name
    return Block(f"{path}{WHOLE}", *ends, names, tensors, place_of(outputs[0]))


def _first_alike(nodes: list[Node], output: Node, given: Collection[Node]) -> Node | None:
    """Return the first tensor from outside that is read and has the shape of the output."""
    read = (source for node in nodes for source in node.all_input_nodes if source in given)
    return next((source for source in read if shape_of(source) == shape_of(output)), None)


def _users(node: Node) -> set[Node]:
    return {user for user in node.users if user.target is not ASSERTION}
