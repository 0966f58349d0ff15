"""Take blocks out of an exported program: each addition becomes what is left of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature
from torch.fx import Graph, GraphModule, Node

from compressor.graph.blocks import Block, dead_without
from compressor.graph.programs.lifting import stored_names
from compressor.graph.programs.nodes import base_name, is_view, is_written_to
from compressor.graph.programs.rebuilding import rebuild
from compressor.graph.rules.facts import IDEMPOTENT
from compressor.slicing.program import copy_graph


@dataclass(frozen=True)
class Shortened:
    """A program without some of its blocks.

    Attributes:
        program: The shorter program; nodes that both have bear the same names.
        gone: Names of the parameters, buffers and constants that nothing needs any more.
        stands_for: Name of a node -> name of the whole program's node whose value it should come
            close to now, since what followed it there is gone.
        left: Name of a node that is gone -> name of the node that is read in its place.
    """

    program: ExportedProgram
    gone: tuple[str, ...]
    stands_for: Mapping[str, str]
    left: Mapping[str, str]


def shorten(program: ExportedProgram, blocks: Sequence[Block]) -> Shortened:
    """Return a program without some of its blocks; it shares the tensors that stay with the given.

    Args:
        program: The whole program; it is not changed.
        blocks: Blocks of it, in the order of execution.
    """
    graph = copy_graph(program.graph)
    dead = dead_without(program, blocks)
    left: dict[str, Node] = {}
    named = {node.name: node for node in graph.nodes}
    for block in blocks:
        addition, stream = named[block.addition], left.get(block.stream, named[block.stream])
        for user in list(addition.users):
            if repeats(user, stream):
                left[user.name] = stream
                user.replace_all_uses_with(stream)
                graph.erase_node(user)
        left[addition.name] = _stand_in(addition, stream, dead)
        addition.replace_all_uses_with(left[addition.name])
    _erase(graph, dead)
    gone = _erase_tensors(graph, stored_names(program), dead)
    shorter = rebuild(
        program,
        module=GraphModule(program.graph_module, graph),
        signature=_sign(program.graph_signature, graph),
        state={n: t for n, t in program.state_dict.items() if n not in gone},
        constants={n: t for n, t in program.constants.items() if n not in gone},
    )
    places = {name: node.name for name, node in left.items()}
    return Shortened(shorter, gone, _meanings(program, blocks), places)


def _stand_in(addition: Node, stream: Node, dead: Collection[str]) -> Node:
    """Return the node that takes an addition's place: the stream, or a copy where it is written to.

    The copy, where one is needed, is added to the graph in place.
    """
    others = [u for u in stream.users if u is not addition and u.name not in dead]
    is_shared = bool(others) or stream.op == "placeholder" or is_view(stream)
    is_written = is_written_to(addition)
    is_returned = any(user.op == "output" for user in addition.users)
    if not ((is_written and is_shared) or (is_returned and stream.op == "placeholder")):
        return stream
    with addition.graph.inserting_before(addition):
        copied = addition.graph.call_function(torch.ops.aten.clone.default, (stream,))
    copied.meta = dict(addition.meta)
    return copied


def repeats(user: Node, stream: Node) -> bool:
    """Return whether an operator does once more what the stream has gone through already."""
    if base_name(user) not in IDEMPOTENT or base_name(user) != base_name(stream):
        return False
    return user.args[1:] == stream.args[1:] and user.kwargs == stream.kwargs


def _erase(graph: Graph, dead: Collection[str]) -> None:
    """Erase the dead nodes from the graph, in place, and what nobody reads that reads them."""
    going: set[Node] = set()
    for node in graph.nodes:
        if node.name in dead or any(source in going for source in node.all_input_nodes):
            going.add(node)
    for node in reversed(list(graph.nodes)):
        if node in going:
            graph.erase_node(node)


def _erase_tensors(
    graph: Graph, stored: Mapping[str, str], dead: Collection[str]
) -> tuple[str, ...]:
    """Erase, in place, tensors that nothing reads in layers whose others are gone.

    Returns:
        The names of all tensors that are gone, those of `dead` nodes among them.
    """
    gone = {stored[name] for name in dead if name in stored}
    inputs = [n for n in graph.nodes if n.op == "placeholder" and n.name in stored]
    layers = {name.rpartition(".")[0] for name in gone}
    layers -= {stored[n.name].rpartition(".")[0] for n in inputs if n.users}
    for node in inputs:
        if not node.users and stored[node.name].rpartition(".")[0] in layers:
            gone.add(stored[node.name])
            graph.erase_node(node)
    return tuple(sorted(gone))


def _sign(signature: ExportGraphSignature, graph: Graph) -> ExportGraphSignature:
    """Return the signature with the inputs that are left, and the outputs by their new names."""
    inputs = {node.name for node in graph.nodes if node.op == "placeholder"}
    (output,) = (node for node in graph.nodes if node.op == "output")
    outputs = []
    for spec, node in zip(signature.output_specs, output.args[0], strict=True):
        renamed = replace(spec.arg, name=node.name) if isinstance(node, Node) else spec.arg
        outputs.append(replace(spec, arg=renamed))
    kept = [spec for spec in signature.input_specs if spec.arg.name in inputs]
    return ExportGraphSignature(kept, outputs)


def _meanings(program: ExportedProgram, blocks: Sequence[Block]) -> dict[str, str]:
    """Return for what nodes stand, whose value is handed on in the place of removed sums.

    A node stands for the last of these sums, if nothing else in the whole program reads it. Where
    an activation follows both of them that changes nothing when it is repeated, it is the node
    before the activation.
    """
    named = {node.name: node for node in program.graph.nodes}
    meant: dict[str, str] = {}
    for block in blocks:
        stream, addition = named[block.stream], named[block.addition]
        if not {user.name for user in stream.users} <= block.nodes:
            continue
        before = stream.all_input_nodes[0] if stream.all_input_nodes else None
        if before is not None and addition.users and _is_repeated(addition, stream):
            if set(before.users) != {stream}:
                continue
            stream = before
        earlier = [name for name, whole in meant.items() if whole == stream.name]
        meant |= dict.fromkeys(earlier or [stream.name], addition.name)
    removed = {block.addition for block in blocks}
    return {name: whole for name, whole in meant.items() if name not in removed}


def _is_repeated(addition: Node, stream: Node) -> bool:
    return all(repeats(user, stream) for user in addition.users)
