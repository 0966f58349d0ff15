"""Take blocks out of a traced network: out of the program, and out of the user's class.

Where a module does nothing but what is gone, it hands on what it is given; where it does more, the
modules in it that make the branch give zeros, or it runs what is left of its traced operators.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import nn
from torch.fx import GraphModule, Node

from compressor.graph.blocks import Block
from compressor.graph.programs.nodes import read_through
from compressor.modules import copy_of, lies_within
from compressor.records import Removal, Shorter, Trace
from compressor.slicing.compare import Reference
from compressor.slicing.from_sizes import CannotStandInError
from compressor.slicing.muting import Muted, find_muted
from compressor.slicing.part import Part, is_in, is_operator, part_of
from compressor.slicing.patch import remove
from compressor.slicing.running import as_module
from compressor.slicing.shortening import Shortened, shorten
from compressor.slicing.stand_in import install
from compressor.slicing.wiring import Wiring, find_wirings


def take_out(trace: Trace, blocks: Sequence[Block]) -> Trace:
    """Return the traced network without some of its blocks; the given one is not changed.

    Args:
        trace: The whole network; it has no layers that work in training alone.
        blocks: Blocks of its program, in the order of execution.
    """
    shortened = shorten(trace.program, blocks)
    muted = {} if isinstance(trace.module, GraphModule) else find_muted(trace, shortened, blocks)
    without = _mute(trace, shortened, blocks, muted)
    if without is None:
        alone = {name: _mute_alone(trace, blocks, name, muted) for name in muted}
        able = {name: muted[name] for name, made in alone.items() if made is not None}
        without = _mute(trace, shortened, blocks, able)
    return without or _take_out(trace, shortened, blocks, {})


def _mute_alone(
    trace: Trace, blocks: Sequence[Block], name: str, muted: Mapping[str, Muted]
) -> Trace | None:
    some = [block for block in blocks if block.name == name]
    return _mute(trace, shorten(trace.program, some), some, {name: muted[name]})


def _mute(
    trace: Trace, shortened: Shortened, blocks: Sequence[Block], muted: Mapping[str, Muted]
) -> Trace | None:
    """Return the network without blocks, where zeros in the place of the muted ones do.

    Args:
        trace, shortened: The whole network, and its program without the blocks.
        blocks: What is taken out.
        muted: By the names of blocks, the modules that then give zeros.
    """
    without = _take_out(trace, shortened, blocks, muted)
    assert without.shorter is not None
    return without if not without.shorter.removal.muted or _agrees(without) else None


def _take_out(
    trace: Trace, shortened: Shortened, blocks: Sequence[Block], muted: Mapping[str, Muted]
) -> Trace:
    owners = _find_owners(trace, shortened, blocks, muted)
    removal = Removal(
        tuple(block.name for block in blocks),
        _within(owners, shortened.gone),
        {path: wiring.spell() for path, wiring in owners.passing.items()},
        {path: wiring.spell() for path, wiring in owners.muted.items()},
    )
    if owners.obstacle:
        module: nn.Module = as_module(shortened.program)
    else:
        module = copy_of(trace.module)
        remove(module, removal, owners.running)
        for path, (part, wiring) in owners.running.items():
            install(module, path, part, wiring)
    spelled = {path: wiring.spell() for path, (_, wiring) in owners.running.items()}
    shorter = Shorter(trace, removal, shortened.stands_for, spelled, owners.obstacle)
    return replace(trace, program=shortened.program, module=module.eval(), shorter=shorter)


def _agrees(shorter: Trace) -> bool:
    """Return whether a class that was made shorter runs, and computes what its program does."""
    reference = Reference(as_module(shorter.program), shorter)
    try:
        return reference.agrees(reference.worst_difference(shorter.module))
    except Exception:  # whatever the network's code raises
        return False


def take_out_of_program(trace: Trace, blocks: Sequence[Block]) -> Trace:
    """Return the traced network with a shorter program alone; its module has all blocks.

    That is enough to choose and to repair, and takes a fraction of the time.
    """
    shortened = shorten(trace.program, blocks)
    removal = Removal(tuple(block.name for block in blocks), shortened.gone)
    shorter = Shorter(trace, removal, shortened.stands_for)
    return replace(trace, program=shortened.program, shorter=shorter)


def _within(owners: _Owners, tensors: Sequence[str]) -> tuple[str, ...]:
    """Return those of the tensors that lie in modules which do not run their own code.

    Others may be read by code that runs, though nothing depends on what it makes of them.
    """
    paths = (*owners.passing, *owners.muted, *owners.running)
    return tuple(name for name in tensors if lies_within(name, paths))


@dataclass(frozen=True)
class _Fate:
    """What becomes of a module that a block is taken out of.

    Attributes:
        wiring: How its call meets the program.
        part: The operators that it runs; None where it hands on what it is given.
    """

    wiring: Wiring
    part: Part | None


@dataclass
class _Owners:
    """What becomes of the modules that blocks are taken out of.

    Attributes:
        passing: Path of a module that hands on what it is given -> how its call meets the program.
        running: Path of a module that runs what is left of its operators -> these, and the same.
        muted: Path of a module that gives zeros in the place of a branch -> the same.
        obstacle: Why the class cannot follow, in words; "" where it can.
    """

    passing: dict[str, Wiring] = field(default_factory=dict)
    running: dict[str, tuple[Part, Wiring]] = field(default_factory=dict)
    muted: dict[str, Wiring] = field(default_factory=dict)
    obstacle: str = ""


def _find_owners(
    trace: Trace, shortened: Shortened, blocks: Sequence[Block], muted: Mapping[str, Muted]
) -> _Owners:
    """Return, for each block, what the smallest module becomes that can do without it.

    That module stays as it is where it has other operators, and those of the block can be muted.
    """
    if isinstance(trace.module, GraphModule):
        return _Owners(obstacle="the model was given as a program, without its class")
    named = {node.name: node for node in trace.program.graph.nodes}
    places = {block.name: _around(block, named) for block in blocks}
    tried: dict[str, _Fate | None] = {}
    _try_all(trace, shortened, set(filter(None, places.values())), tried)
    quiet = {name for name in muted if not _passes(tried.get(places[name]))}
    silent = {path: wiring for name in quiet for path, wiring in muted[name].items()}
    places = {name: path for name, path in places.items() if name not in quiet}
    while True:
        lost = next((name for name, path in places.items() if not path), "")
        if lost:
            return _Owners(obstacle=f"no module can do without the block {lost}")
        _try_all(trace, shortened, set(places.values()), tried)
        stuck = [name for name, path in places.items() if tried[path] is None]
        if not stuck:
            return _sort(set(places.values()), tried, silent)
        places |= {name: places[name].rpartition(".")[0] for name in stuck}


def _passes(fate: _Fate | None) -> bool:
    return fate is not None and fate.part is None


def _sort(
    paths: set[str], tried: Mapping[str, _Fate | None], muted: Mapping[str, Wiring]
) -> _Owners:
    """Sort modules by what becomes of them; those within others that run operators do not count."""
    owners = _Owners()
    for path in sorted(paths):
        fate = tried[path]
        if fate is None or lies_within(path, paths):
            continue
        if fate.part is None:
            owners.passing[path] = fate.wiring
        else:
            owners.running[path] = fate.part, fate.wiring
    owners.muted = {path: muted[path] for path in sorted(muted) if not lies_within(path, paths)}
    return owners


def _around(block: Block, named: dict[str, Node]) -> str:
    """Return the path of the innermost module in which all operators of a block are."""
    nodes = [named[name] for name in block.nodes if named[name].op == "call_function"]
    stack = [path for path, _ in (named[block.addition].meta.get("nn_module_stack") or {}).values()]
    return next((p for p in reversed(stack) if p and all(is_in(n, p) for n in nodes)), "")


def _try_all(
    trace: Trace, shortened: Shortened, paths: set[str], tried: dict[str, _Fate | None]
) -> None:
    """Add to `tried`, in place, what each module becomes; None where it cannot follow."""
    lefts: dict[str, _Left] = {}
    for path in paths - tried.keys():
        try:
            lefts[path] = _what_is_left(trace, shortened, path)
        except CannotStandInError:
            tried[path] = None
    calls = {path: left.call for path, left in lefts.items()}
    wired = find_wirings(trace.module, trace.program, trace.examples, calls) if calls else {}
    for path, left in lefts.items():
        wiring = wired.get(path)
        tried[path] = None if wiring is None else _Fate(wiring, left.part)


@dataclass(frozen=True)
class _Left:
    """What is left of a module.

    Attributes:
        call: Its part of the whole program, with those inputs alone that are needed still.
        part: Its part of the shorter program; None where it hands on its one input.
    """

    call: Part
    part: Part | None


def _what_is_left(trace: Trace, shortened: Shortened, path: str) -> _Left:
    """Return what is left of a module without the blocks.

    Raises:
        CannotStandInError: It cannot be told apart from the rest.
    """
    whole = part_of(trace.program, trace.module, path)
    named, part = {node.name: node for node in shortened.program.graph.nodes}, None
    inside = [node for node in named.values() if is_operator(node) and is_in(node, path)]
    if any(read_through(node) is node for node in inside):
        part = part_of(shortened.program, trace.module, path)

    def source(name: str) -> str:
        name = shortened.left.get(name, name)
        return read_through(named[name]).name if name in named else ""

    wanted = [source(name) for name in (part.inputs if part is not None else (whole.output,))]
    before = [source(name) for name in whole.inputs]
    if not set(wanted) <= set(before):
        raise CannotStandInError("takes what its call was not given")
    needed = tuple(before.index(name) for name in wanted)
    inputs = tuple(whole.inputs[place] for place in needed)
    return _Left(replace(whole, inputs=inputs, needed=needed), part)
