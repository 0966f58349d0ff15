"""Find modules that can give zeros in the place of a block's branch, so that their owner stays.

The module that holds the addition then runs its own code, for any sizes of its inputs: it adds
zeros to the stream.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from compressor.graph.blocks import Block
from compressor.graph.programs.nodes import paths_of, read_through, shape_of
from compressor.modules import lies_within
from compressor.records import Trace
from compressor.slicing.from_sizes import CannotStandInError
from compressor.slicing.part import Part, is_operator, part_of
from compressor.slicing.shortening import Shortened
from compressor.slicing.wiring import Wiring, find_wirings

Muted = dict[str, Wiring]
"""Path of a module that gives zeros as large as one of its call's tensors -> which, and how they
are returned."""


def find_muted(trace: Trace, shortened: Shortened, blocks: Sequence[Block]) -> dict[str, Muted]:
    """Return, by the names of blocks, the modules to mute; none where that cannot do.

    A block's layers must all lie in modules that do nothing else, and what enters these must be as
    large as the branch. Whether zeros in them make the branch zero is not looked at.
    """
    within = _dead_modules(trace, shortened, blocks)
    parts: dict[str, Part] = {}
    for path in set[str]().union(*within.values()):
        try:
            parts[path] = part_of(trace.program, trace.module, path)
        except CannotStandInError:
            continue
    wired = find_wirings(trace.module, trace.program, trace.examples, parts) if parts else {}
    named = {node.name: node for node in trace.program.graph.nodes}
    left = {node.name for node in shortened.program.graph.nodes}
    muted: dict[str, Muted] = {}
    for block in blocks:
        paths, shape = within[block.name], shape_of(named[block.branch])
        if not paths <= wired.keys() or not all(lies_within(t, paths) for t in block.tensors):
            continue
        chosen = {path: _first(wired[path]) for path in paths}
        sources = {path: parts[path].inputs[place] for path, place in chosen.items()}
        if all(shape_of(named[n]) == shape for n in sources.values() if n in left):
            muted[block.name] = {
                path: replace(wired[path], arguments=(wired[path].arguments[place],))
                for path, place in chosen.items()
            }
    return muted


def _dead_modules(
    trace: Trace, shortened: Shortened, blocks: Collection[Block]
) -> dict[str, set[str]]:
    """Return, by the names of blocks, the largest modules all of whose operators go with blocks."""
    left = {node.name for node in shortened.program.graph.nodes}
    left |= {block.addition for block in blocks}
    computing = (n for n in trace.program.graph.nodes if is_operator(n) and read_through(n) is n)
    operators = {n.name: n for n in computing}
    busy = {path for name in left & operators.keys() for path in paths_of(operators[name])}
    modules = {path for path, _ in trace.module.named_modules() if path}
    idle = modules - busy
    dead: dict[str, set[str]] = {}
    for block in blocks:
        stacks = [paths_of(operators[name]) for name in block.nodes & operators.keys()]
        firsts = (next((path for path in stack if path in idle), "") for stack in stacks)
        dead[block.name] = set(filter(None, firsts))
    return dead


def _first(wiring: Wiring) -> int:
    """Return the place, among a part's inputs, of the first one that the call is given."""
    return next(i for i, position in enumerate(wiring.arguments) if position is not None)
