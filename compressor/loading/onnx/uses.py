"""Find who takes which values of a graph, and which nodes and steps nobody needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from compressor.loading.onnx.contents import Graph, Node
from compressor.loading.onnx.planned_steps import FromValue, GraphPlan, Planned, Source


def uses_of_constants(graph: Graph, nodes: Sequence[Node]) -> dict[str, list[tuple[Node, int]]]:
    """Return which nodes take each constant, and at which of their inputs.

    What a graph returns is taken by a node that stands for its results.
    """
    uses: dict[str, list[tuple[Node, int]]] = {}
    for node in all_nodes(nodes):
        for position, name in enumerate(node.inputs):
            if name in graph.constants:
                uses.setdefault(name, []).append((node, position))
    returned = Node(-1, "results", "", 0, (), (), {})
    for name in (*(d.name for d in graph.outputs), *inner_results(nodes)):
        if name in graph.constants:
            uses.setdefault(name, []).append((returned, 0))
    return uses


def all_nodes(nodes: Sequence[Node]) -> Iterator[Node]:
    """Yield nodes, those within branches after the node that chooses among them."""
    for node in nodes:
        yield node
        for value in node.attributes.values():
            if isinstance(value, Graph):
                yield from all_nodes(value.nodes)


def inner_results(nodes: Sequence[Node]) -> Iterator[str]:
    """Yield the names of what branches return."""
    for node in nodes:
        for value in node.attributes.values():
            if isinstance(value, Graph):
                yield from (declared.name for declared in value.outputs)
                yield from inner_results(value.nodes)


def live_nodes(graph: Graph) -> tuple[Node, ...]:
    """Return the nodes that an output depends on."""
    wanted = {declared.name for declared in graph.outputs}
    live: list[Node] = []
    for node in reversed(graph.nodes):
        if wanted & set(node.outputs):
            live.append(node)
            wanted |= {name for each in all_nodes([node]) for name in each.inputs}
            wanted |= set(inner_results([node]))
    return tuple(reversed(live))


def without_dead(steps: tuple[Planned, ...], results: tuple[Source, ...]) -> tuple[Planned, ...]:
    """Leave out the steps that nothing takes anything from."""
    wanted = {source.name for source in results if isinstance(source, FromValue)}
    live: list[Planned] = []
    for step in reversed(steps):
        if wanted & set(step.outputs):
            live.append(step)
            wanted |= taken_by(step)
    return tuple(reversed(live))


def last_uses(layout: GraphPlan) -> dict[int, list[str]]:
    """Return after which step which values are not needed any more."""
    last: dict[str, int] = {}
    for at, step in enumerate(layout.steps):
        for name in taken_by(step):
            last[name] = at
    kept = {source.name for source in layout.results if isinstance(source, FromValue)}
    by_step: dict[int, list[str]] = {}
    for name, at in last.items():
        if name not in kept:
            by_step.setdefault(at, []).append(name)
    return by_step


def taken_by(step: Planned) -> set[str]:
    """Return the names of the values that a step takes, in its branches as well."""
    names = {source.name for source in step.inputs if isinstance(source, FromValue)}
    for steps, results in step.branches:
        names |= {source.name for source in results if isinstance(source, FromValue)}
        for inner in steps:
            names |= taken_by(inner)
    return names
