"""Put the nodes of a graph in order, and refuse what is missing and what goes in circles."""

from __future__ import annotations

from collections.abc import Iterable

from compressor.listing import some_of
from compressor.loading.onnx.contents import Graph, Node
from compressor.loading.onnx.saying import damaged


def made_by(nodes: Iterable[Node]) -> set[str]:
    """Return the names of what nodes compute."""
    return {name for node in nodes for name in node.outputs}


def in_order(nodes: list[Node], known: set[str] | frozenset[str]) -> list[Node]:
    """Return the nodes so that each comes after those that it needs.

    Raises:
        CompressorError: Something that a node needs is not there, or nodes need one another.
    """
    made = {name: node for node in nodes for name in node.outputs if name}
    needed = {node.place: {n for n in _needs(node) if n not in known} for node in nodes}
    missing = [(n, node) for node in nodes for n in needed[node.place] if n not in made]
    if missing:
        name, node = missing[0]
        raise damaged(
            f"a node needs {name}, which nothing computes and no initializer is", node.name
        )
    users: dict[str, list[Node]] = {}
    for node in nodes:
        for name in needed[node.place]:
            users.setdefault(name, []).append(node)
    ready = [node for node in reversed(nodes) if not needed[node.place]]
    ordered: list[Node] = []
    while ready:
        node = ready.pop()
        ordered.append(node)
        for name in node.outputs:
            for user in users.get(name, ()):
                needed[user.place].discard(name)
                if not needed[user.place]:
                    ready.append(user)
    if len(ordered) < len(nodes):
        stuck = [node.name for node in nodes if needed[node.place]]
        raise damaged("nodes need one another in a circle", some_of(stuck))
    return nodes if _runs(nodes, known) else ordered


def _runs(nodes: list[Node], known: set[str] | frozenset[str]) -> bool:
    """Return whether the nodes can run in the order in which they stand."""
    seen = set(known)
    for node in nodes:
        if any(name not in seen for name in _needs(node)):
            return False
        seen |= set(node.outputs)
    return True


def _needs(node: Node) -> set[str]:
    """Return what a node needs, and what the graphs within it need from around them."""
    needs = {name for name in node.inputs if name}
    for value in node.attributes.values():
        if isinstance(value, Graph):
            own = made_by(value.nodes) | {declared.name for declared in value.inputs}
            inner = {name for each in value.nodes for name in _needs(each)}
            inner |= {declared.name for declared in value.outputs}
            needs |= inner - own
    return needs
