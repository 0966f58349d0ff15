"""Let the user's class follow the program.

It follows by its attributes, and where its code cannot, by letting single modules run their traced
operators.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.utils.hooks import RemovableHandle

from compressor.agreement import Difference
from compressor.graph.axes import Axis, Bools
from compressor.graph.network import Network
from compressor.modules import lies_within
from compressor.records import Trace
from compressor.slicing.compare import Reference, outputs_of
from compressor.slicing.from_sizes import CannotStandInError
from compressor.slicing.literals import Attributes
from compressor.slicing.part import Part, part_of
from compressor.slicing.patch import patch_class
from compressor.slicing.program import Indices
from compressor.slicing.running import as_module
from compressor.slicing.stand_in import install
from compressor.slicing.weights import learn
from compressor.slicing.wiring import Wiring, find_wirings

ATTEMPTS = 6
"""How often modules may be replaced before the program is delivered instead."""


@dataclass(frozen=True)
class Followed:
    """The module to deliver, and how the user's class followed the program.

    Attributes:
        module: The user's class, or the program as a module.
        difference: Relative difference between its outputs and the program's.
        obstacle: Why it is the program and not the class, in words; "" for the class.
        attributes: Module path -> attribute -> new value.
        stand_ins: Module path -> how its call meets its traced operators.
        stuck: Path of the first module that could not follow.
        reference: What the program computes, where nothing can change that any more.
    """

    module: nn.Module
    difference: float = 0.0
    obstacle: str = ""
    attributes: Attributes = field(default_factory=dict)
    stand_ins: dict[str, dict[str, Any]] = field(default_factory=dict)
    stuck: str = ""
    reference: Reference | None = None


def follow(
    trace: Trace,
    network: Network,
    program: ExportedProgram,
    masks: Mapping[Axis, Bools],
    indices: Indices,
    *,
    stand_ins_allowed: bool = True,
) -> Followed:
    """Return the user's class if it computes what the program does, else the program."""
    running = as_module(program)
    if trace.shorter is not None and trace.shorter.obstacle:
        return Followed(running, obstacle=trace.shorter.obstacle)
    if isinstance(trace.module, GraphModule):
        return Followed(running, obstacle="the model was given as a program, without its class")
    if trace.branched:
        return Followed(running, obstacle="forward branches on values, of which one is captured")
    reference = Reference(running, trace)
    lasting = reference if reference.lasts else None
    sizes = {axis: int(mask.sum()) for axis, mask in masks.items()}
    stand_ins: dict[str, tuple[Part, Wiring]] = {}
    first_obstacle = stuck = ""
    for _ in range(ATTEMPTS):
        module, attributes, suspects = patch_class(trace, network, program, indices, sizes)
        for path, (part, wiring) in stand_ins.items():
            install(module, path, part, wiring)
        difference, failed, reason = _try(reference, module)
        if reference.agrees(difference):
            learn(module, trace.learning)
            spelled = {path: wiring.spell() for path, (_, wiring) in stand_ins.items()}
            before = trace.shorter.stand_ins if trace.shorter is not None else {}
            spelled |= {p: dict(w) for p, w in before.items() if not _lies_in(p, stand_ins)}
            return Followed(module, difference.size, "", attributes, spelled, reference=lasting)
        where = failed or next((p for p in suspects if not _lies_in(p, stand_ins)), "")
        first_obstacle = first_obstacle or f"{where or 'the model'} could not follow ({reason})"
        stuck = stuck or where
        more = _find_replaceable(trace, program, where, stand_ins) if stand_ins_allowed else {}
        if not more:
            break
        stand_ins = {p: s for p, s in stand_ins.items() if not _lies_in(p, more)} | more
    return Followed(running, obstacle=first_obstacle, stuck=stuck, reference=lasting)


def _try(reference: Reference, module: nn.Module) -> tuple[Difference, str, str]:
    """Compare a module with the program.

    Returns:
        The difference (infinite if it raised), the innermost module that raised, and what went
        wrong.
    """
    entered, watches = _watch(module)
    try:
        if reference.ends_after:
            outputs_of(module, reference.inputs[0])  # what comes later must run at least
        found = reference.worst_difference(module)
        return found, "", f"it differs from the program by {found.size:.1e}: {found.place}"
    except Exception as error:
        first_line = str(error).splitlines()[0] if str(error) else ""
        return (
            Difference(math.inf),
            next(iter(entered), ""),
            f"{type(error).__name__}: {first_line}",
        )
    finally:
        for watch in watches:
            watch.remove()


def _watch(module: nn.Module) -> tuple[list[str], list[RemovableHandle]]:
    """Hook all modules to list those entered and not yet left, innermost first.

    It shows where a forward is that raises.
    """
    entered: list[str] = []
    watches: list[RemovableHandle] = []
    for path, layer in module.named_modules():
        if path:
            watches += [
                layer.register_forward_pre_hook(lambda *_, path=path: entered.insert(0, path)),
                layer.register_forward_hook(lambda *_, path=path: entered.remove(path)),
            ]
    return entered, watches


def _find_replaceable(
    trace: Trace,
    program: ExportedProgram,
    where: str,
    replaced: Mapping[str, tuple[Part, Wiring]],
) -> dict[str, tuple[Part, Wiring]]:
    """Return the nearest module around `where` that can run its part of the program.

    All others of its class come with it; nothing where only the whole network is left.
    """
    layers = dict(trace.module.named_modules())
    path = where
    while path:
        kind = type(layers[path])
        if path not in replaced and not _is_plain(kind):
            alike = [p for p, layer in layers.items() if type(layer) is kind and p]
            found = _find_parts(trace, program, [p for p in alike if not _lies_in(p, replaced)])
            if path in found:
                return found
        path = path.rpartition(".")[0]
    return {}


def _is_plain(kind: type[nn.Module]) -> bool:
    """Return whether a class is torch.nn's own.

    Its layers follow their weights, and its containers only hand on: the module around them is the
    one that cannot follow.
    """
    return kind.__module__.startswith("torch.nn.modules.") and kind is not nn.MultiheadAttention


def _lies_in(path: str, others: Mapping[str, Any]) -> bool:
    return path in others or lies_within(path, others)


def _find_parts(
    trace: Trace, program: ExportedProgram, paths: list[str]
) -> dict[str, tuple[Part, Wiring]]:
    parts: dict[str, Part] = {}
    originals: dict[str, Part] = {}
    for path in paths:
        try:
            parts[path] = part_of(program, trace.module, path)
            originals[path] = part_of(trace.program, trace.module, path)
        except CannotStandInError:
            parts.pop(path, None)
    wired = find_wirings(trace.module, trace.program, trace.examples, originals) if parts else {}
    return {path: (parts[path], wired[path]) for path in parts if path in wired}
