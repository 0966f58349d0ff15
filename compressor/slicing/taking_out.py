"""Take blocks out of a traced network: out of the program, and out of the user's class.

Where a module does nothing but what is gone, it hands on what it is given; where it does more, it
runs what is left of its traced operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from torch import nn
from torch.fx import GraphModule, Node

from compressor.graph.blocks import Block
from compressor.modules import copy_of
from compressor.records import Removal, Shorter, Trace
from compressor.slicing.part import CannotStandInError, Part, is_in, part_of
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
    removal = Removal(tuple(block.name for block in blocks), shortened.gone)
    owners = _find_owners(trace, shortened, blocks)
    if owners.obstacle:
        module: nn.Module = as_module(shortened.program)
    else:
        removal = replace(removal, passing=owners.passing_to_plan())
        module = copy_of(trace.module)
        remove(module, removal, owners.running)
        for path, (part, wiring) in owners.running.items():
            install(module.get_submodule(path), part, wiring)
    spelled = {path: asdict(wiring) for path, (_, wiring) in owners.running.items()}
    shorter = Shorter(trace, removal, shortened.stands_for, spelled, owners.obstacle)
    return replace(trace, program=shortened.program, module=module.eval(), shorter=shorter)


def take_out_of_program(trace: Trace, blocks: Sequence[Block]) -> Trace:
    """Return the traced network with a shorter program alone; its module has all blocks.

    That is enough to choose and to repair, and takes a fraction of the time.
    """
    shortened = shorten(trace.program, blocks)
    removal = Removal(tuple(block.name for block in blocks), shortened.gone)
    shorter = Shorter(trace, removal, shortened.stands_for)
    return replace(trace, program=shortened.program, shorter=shorter)


@dataclass
class _Owners:
    """What becomes of the modules that blocks are taken out of.

    Attributes:
        passing: Path of a module that hands on what it is given -> how its call meets the program.
        running: Path of a module that runs what is left of its operators -> these, and the same.
        obstacle: Why the class cannot follow, in words; "" where it can.
    """

    passing: dict[str, Wiring] = field(default_factory=dict)
    running: dict[str, tuple[Part, Wiring]] = field(default_factory=dict)
    obstacle: str = ""

    def passing_to_plan(self) -> dict[str, dict[str, object]]:
        return {path: asdict(wiring) for path, wiring in self.passing.items()}


def _find_owners(trace: Trace, shortened: Shortened, blocks: Sequence[Block]) -> _Owners:
    """Return, for each block, what the smallest module becomes that can do without it."""
    if isinstance(trace.module, GraphModule):
        return _Owners(obstacle="the model was given as a program, without its class")
    named = {node.name: node for node in trace.program.graph.nodes}
    tried: dict[str, tuple[Part, Wiring] | Wiring | None] = {}
    waiting = [(block, _around(block, named)) for block in blocks]
    found = _Owners()
    while waiting:
        for block, path in waiting:
            if not path:
                return _Owners(obstacle=f"no module can do without the block {block.name}")
        _try_all(trace, shortened, {path for _, path in waiting}, tried)
        if not any(tried[path] is None for _, path in waiting):
            break
        waiting = [
            (block, path.rpartition(".")[0] if tried[path] is None else path)
            for block, path in waiting
        ]
    paths = {path for _, path in waiting}
    for path in sorted(paths):
        if any(path.startswith(f"{other}.") for other in paths):
            continue  # it lies in another one that runs its operators
        what = tried[path]
        if isinstance(what, Wiring):
            found.passing[path] = what
        elif what is not None:
            found.running[path] = what
    return found


def _around(block: Block, named: dict[str, Node]) -> str:
    """Return the path of the innermost module in which all operators of a block are."""
    nodes = [named[name] for name in block.nodes if named[name].op == "call_function"]
    stack = [path for path, _ in (named[block.addition].meta.get("nn_module_stack") or {}).values()]
    return next((p for p in reversed(stack) if p and all(is_in(n, p) for n in nodes)), "")


def _try_all(
    trace: Trace,
    shortened: Shortened,
    paths: set[str],
    tried: dict[str, tuple[Part, Wiring] | Wiring | None],
) -> None:
    """Add to `tried`, in place, what each module becomes; None where it cannot follow."""
    wholes: dict[str, Part] = {}
    for path in paths - tried.keys() - {""}:
        try:
            wholes[path] = part_of(trace.program, trace.module, path)
        except CannotStandInError:
            tried[path] = None
    wired = find_wirings(trace.module, trace.program, trace.examples, wholes) if wholes else {}
    for path, whole in wholes.items():
        wiring = wired.get(path)
        tried[path] = None if wiring is None else _become(trace, shortened, path, whole, wiring)


def _become(
    trace: Trace, shortened: Shortened, path: str, whole: Part, wiring: Wiring
) -> tuple[Part, Wiring] | Wiring | None:
    """Return the part of the shorter program that a module runs, with its wiring.

    A wiring alone where nothing is left to run; None where the module cannot be told apart.
    """
    inputs = [shortened.left.get(name, name) for name in whole.inputs]

    def wire(names: Sequence[str]) -> Wiring | None:
        if not set(names) <= set(inputs):
            return None
        places = tuple(wiring.arguments[inputs.index(name)] for name in names)
        return replace(wiring, arguments=places)

    nodes = shortened.program.graph.nodes
    if not any(is_in(node, path) for node in nodes if node.op == "call_function"):
        return wire([shortened.left.get(whole.output, "")])
    try:
        part = part_of(shortened.program, trace.module, path)
    except CannotStandInError:
        return None
    own = wire(part.inputs)
    return None if own is None else (part, own)
