"""Find blocks: branches that an addition joins to a stream, and that can go as a whole.

A block is found in the graph, not by the names of classes: an addition one of whose operands is the
stream as it came in (through a projection or none), and whose other operand's branch is used
nowhere else. Residual blocks are such, attention and MLP branches, and parallel branches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from torch.export import ExportedProgram
from torch.fx import Graph, Node

from compressor.graph.programs.lifting import stored_names
from compressor.graph.programs.nodes import (
    ASSERTION,
    given_arguments,
    is_mutable,
    is_view,
    live_nodes,
    operator_of,
    shape_of,
)
from compressor.graph.rules.facts import SUMS, WEIGHING
from compressor.graph.rules.mixture import GROUPED
from compressor.source_lines import owner_of, place_of

_WEIGHTY = frozenset((*WEIGHING, *GROUPED))
"""Operators of layers with weights, of which a block has one at least."""


@dataclass(frozen=True)
class Block:
    """A branch that an addition joins to a stream.

    Attributes:
        name: Path of the module that computes the branch, by which users know the block.
        addition: Name of the program's node that adds.
        stream: Name of the node that stands for the sum once the branch is gone.
        branch: Name of the node that ends the branch.
        nodes: Names of the operators and stored tensors that only the branch uses, and of the
            addition; they go with it.
        tensors: Names of these parameters, buffers and constants.
        place: The layer and source line of the addition.
    """

    name: str
    addition: str
    stream: str
    branch: str
    nodes: frozenset[str]
    tensors: frozenset[str]
    place: str


def find_blocks(program: ExportedProgram) -> tuple[Block, ...]:
    """Return a program's blocks in the order in which they are executed."""
    graph, stored = program.graph, stored_names(program)
    live, depends = live_nodes(graph), _ancestors(graph)
    blocks: list[tuple[Block, str]] = []
    for addition in graph.nodes:
        if addition in live and _is_sum(addition):
            for stream, branch in _sides(addition):
                block = _block(addition, stream, branch, stored, depends)
                blocks += [block] if block is not None else []
    return _named(blocks)


def dead_without(program: ExportedProgram, blocks: Collection[Block]) -> set[str]:
    """Return the names of the nodes that nothing needs once all of these blocks are gone.

    They may be more than the blocks' own: what two of them shared goes as well. The call's inputs
    stay, since the network is called as before.
    """
    graph, stored = program.graph, stored_names(program)
    streams = {block.addition: block.stream for block in blocks}
    needed = {n for n in graph.nodes if n.op == "placeholder" and n.name not in stored}
    named = {node.name: node for node in graph.nodes}
    live = live_nodes(graph)
    own = set[str]().union(*(block.nodes for block in blocks))
    for node in reversed(graph.nodes):
        if node.name in streams:
            if node in needed:
                needed.add(named[streams[node.name]])
        elif node.op == "output" or node in needed or (node in live and _acts(node, own)):
            needed |= {node, *node.all_input_nodes}
    needed -= {named[name] for name in streams}
    return {n.name for n in graph.nodes if n in live and n not in needed and n.op != "output"}


def _acts(node: Node, own: Collection[str]) -> bool:
    """Return whether a node must be run although nobody uses it, and lies in no block."""
    return is_mutable(node) and node.name not in own


def _is_sum(node: Node) -> bool:
    if operator_of(node) not in SUMS or "alpha" in given_arguments(node):
        return False
    operands = node.all_input_nodes
    return len(operands) == 2 and len({shape_of(n) for n in (node, *operands)}) == 1


def _sides(addition: Node) -> Iterator[tuple[Node, Node]]:
    """Yield an addition's operands as stream and branch, in both ways."""
    left, right = addition.all_input_nodes
    yield left, right
    yield right, left


def _ancestors(graph: Graph) -> dict[Node, frozenset[Node]]:
    """Return, per node, all nodes that it depends on, and itself."""
    ancestors: dict[Node, frozenset[Node]] = {}
    for node in graph.nodes:
        ancestors[node] = frozenset({node}).union(*(ancestors[n] for n in node.all_input_nodes))
    return ancestors


def _block(
    addition: Node,
    stream: Node,
    branch: Node,
    stored: Mapping[str, str],
    depends: Mapping[Node, frozenset[Node]],
) -> tuple[Block, str] | None:
    """Return the branch of an addition as a block, with the name of its layers; None if it is none.

    The name is of the block's own layers; `_named` makes it one by which the block is known.
    """
    cone = _cone(branch, addition, stored)
    taken = {n for node in cone for n in node.all_input_nodes if n not in cone}
    entering = {n for n in taken if n.name not in stored}
    weights = [n for n in cone if operator_of(n) in _WEIGHTY]
    is_joined = stream in entering or entering & depends[stream]
    if not weights or not is_joined or stream in depends[branch] - entering - {stream}:
        return None
    if stream not in entering and _work(depends, stream, entering) >= len(weights):
        return None
    if any(_writes_outside(node, cone) for node in cone):
        return None
    nodes = frozenset(n.name for n in (*cone, addition))
    tensors = frozenset(stored[name] for name in nodes if name in stored)
    names = addition.name, stream.name, branch.name
    return Block("", *names, nodes, tensors, place_of(addition)), _layers_of(cone, addition)


def _work(depends: Mapping[Node, frozenset[Node]], stream: Node, entering: set[Node]) -> int:
    """Return how many layers with weights a projection has: those after what enters the branch."""
    before = set[Node]().union(*(depends[n] for n in entering))
    return sum(operator_of(n) in _WEIGHTY for n in depends[stream] - before)


def _cone(branch: Node, addition: Node, stored: Mapping[str, str]) -> set[Node]:
    """Return the nodes that only this operand of the addition needs, stored tensors among them."""
    cone: set[Node] = set()
    waiting = [branch]
    while waiting:
        node = waiting.pop()
        is_input = node.op == "placeholder" and node.name not in stored
        if node in cone or is_input or not _is_used_within(node, cone, branch, addition):
            continue
        going = {node, *_that_only_act(node)}
        cone |= going
        waiting += [source for n in going for source in n.all_input_nodes]
    return cone


def _is_used_within(node: Node, cone: Collection[Node], branch: Node, addition: Node) -> bool:
    others = set(node.users) - ({addition} if node is branch else set())
    return all(user in cone or _only_acts(user) for user in others)


def _only_acts(user: Node) -> bool:
    """Return whether nobody reads what a node returns: an assertion, or writes in place.

    Views through which nothing but writes happens are such, too.
    """
    if user.target is ASSERTION or user.op == "output":
        return user.op != "output"
    return (is_mutable(user) or is_view(user)) and all(map(_only_acts, user.users))


def _that_only_act(node: Node) -> set[Node]:
    """Return the nodes after this one that only act, with those that they go through."""
    acting = set(filter(_only_acts, node.users))
    return acting.union(*map(_that_only_act, acting))


def _writes_outside(node: Node, cone: Collection[Node]) -> bool:
    """Return whether a node changes memory in place that comes from outside of its branch."""
    if not is_mutable(node):
        return False
    target = node.args[0]
    while isinstance(target, Node) and target in cone:
        if not (is_view(target) or is_mutable(target)):
            return False
        target = target.args[0]
    return True


# -- names -----------------------------------------------------------------------------------------


def _layers_of(cone: Collection[Node], addition: Node) -> str:
    """Return the path of the innermost module that has all layers of a branch with weights."""
    paths = [owner_of(node).split(".") for node in cone if operator_of(node) in _WEIGHTY]
    common = paths[0]
    for path in paths[1:]:
        same = [a == b for a, b in zip(common, path, strict=False)]
        common = common[: same.index(False) if False in same else len(same)]
    return ".".join(common) or owner_of(addition)


def _named(blocks: list[tuple[Block, str]]) -> tuple[Block, ...]:
    """Return the blocks by the names of their layers; those of one name are numbered."""
    counts, seen = Counter(name for _, name in blocks), Counter[str]()
    named = []
    for block, name in blocks:
        seen[name] += 1
        number = f" #{seen[name]}" if counts[name] > 1 else ""
        named.append(replace(block, name=f"{name or block.addition}{number}"))
    return tuple(named)
