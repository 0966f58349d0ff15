"""Slicing: a choice of kept channels becomes a smaller program and, where it follows, the user's
own class, smaller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.utils.hooks import RemovableHandle

from compressor.network import Network
from compressor.records import Plan, Trace
from compressor.slicing.compare import TOLERANCE, require_agreement, variants, worst_difference
from compressor.slicing.patch import apply_plan, patched_class, source_of
from compressor.slicing.program import kept_indices, slice_program
from compressor.slicing.running import ProgramModule, as_module

__all__ = [
    "ProgramModule",
    "Sliced",
    "adopt_weights",
    "apply_plan",
    "as_module",
    "compare",
    "slice_network",
    "variants",
]


@dataclass(frozen=True)
class Sliced:
    """The smaller network in both forms.

    `module` is the user's class where `plan.form` is "class", else the program as a module;
    `difference` is the largest relative difference between module and program.
    """

    program: ExportedProgram
    module: nn.Module
    plan: Plan
    difference: float


def slice_network(trace: Trace, network: Network, keep: Mapping[str, Sequence[int]]) -> Sliced:
    """Keep the listed indices of each group (groups that are not listed keep all).

    Raises:
        CompressorError: The sliced program does not fit together (a wrong rule).
    """
    masks = network.masks(keep)
    program = slice_program(trace, network, masks)
    indices = kept_indices(network, masks)
    module, attributes, difference, obstacle = _users_class(trace, network, program, keep)
    plan = Plan(
        source=source_of(trace.module),
        groups={
            g.name: {"size": g.size, "role": g.role, "keep": sorted(keep[g.name])}
            for g in network.groups
            if g.name in keep
        },
        tensors=indices,
        aliases=dict(network.aliases),
        attributes=attributes,
        form="program" if obstacle else "class",
        obstacle=obstacle,
    )
    return Sliced(program, module, plan, difference)


def _users_class(
    trace: Trace, network: Network, program: ExportedProgram, keep: Mapping[str, Sequence[int]]
) -> tuple[nn.Module, dict[str, dict[str, object]], float, str]:
    """The user's class if it computes what the program does, else the program and the obstacle."""
    running = as_module(program)
    if isinstance(trace.module, GraphModule):
        return running, {}, 0.0, "the model was given as a program, without its class"
    if trace.branched:
        return running, {}, 0.0, "forward branches on values; the program refuses other branches"
    masks = network.masks(keep)
    sizes = {axis: int(mask.sum()) for axis, mask in masks.items()}
    module, attributes, unspelled = patched_class(
        trace, network, kept_indices(network, masks), sizes
    )
    failed, watches = _watch(module)
    try:
        difference = worst_difference(running, module, trace)
        reason = f"its outputs differ from the program's by {difference:.1e}"
    except Exception as error:
        difference = float("inf")
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    finally:
        for watch in watches:
            watch.remove()
    if difference > TOLERANCE:
        where = failed[0] if failed else ", ".join(dict.fromkeys(unspelled)) or "the model"
        return running, {}, 0.0, f"{where} could not follow ({reason})"
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return module, attributes, difference, ""


def _watch(module: nn.Module) -> tuple[list[str], list[RemovableHandle]]:
    """Modules entered and not yet left, innermost first: where a forward that raises is."""
    entered: list[str] = []
    watches: list[RemovableHandle] = []
    for path, layer in module.named_modules():
        if path:
            watches += [
                layer.register_forward_pre_hook(lambda *_, path=path: entered.insert(0, path)),
                layer.register_forward_hook(lambda *_, path=path: entered.remove(path)),
            ]
    return entered, watches


def adopt_weights(sliced: Sliced, module: nn.Module) -> Sliced:
    """Carry the weights of a recovered `module` over to the program, by name."""
    state = module.state_dict()
    with torch.no_grad():
        for name, tensor in sliced.program.state_dict.items():
            if name in state and tensor.data_ptr() != state[name].data_ptr():
                tensor.copy_(state[name])
    return replace(sliced, module=module)


def compare(sliced: Sliced, trace: Trace) -> float:
    """The largest relative difference between module and program on several inputs.

    Raises:
        CompressorError: They disagree.
    """
    worst = worst_difference(as_module(sliced.program), sliced.module, trace)
    require_agreement(worst, "the module and the program")
    return worst
