"""Turn a choice of kept channels into a smaller program and a smaller class of the user's own.

Where the class cannot follow, the program stands for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.export import ExportedProgram

from compressor.errors import CompressorError
from compressor.graph.network import Network
from compressor.on_demand import OnDemand
from compressor.records import Plan, Trace
from compressor.slicing.compare import Reference, require_agreement, variants
from compressor.slicing.following import follow
from compressor.slicing.patch import apply_plan, check_source, source_of
from compressor.slicing.program import kept_indices, slice_program
from compressor.slicing.running import ProgramModule, as_module
from compressor.slicing.weights import (
    carry_sliced,
    carry_weights,
    learn,
    part_weights,
    read_program,
    read_weights,
)

__all__ = [
    "ProgramModule",
    "Sliced",
    "apply_plan",
    "as_module",
    "carry_sliced",
    "carry_weights",
    "check_source",
    "compare",
    "group_entries",
    "kept_indices",
    "learn",
    "part_weights",
    "read_program",
    "read_weights",
    "slice_network",
    "variants",
]


@dataclass(frozen=True)
class Sliced:
    """The smaller network in both forms.

    Attributes:
        program: The rewritten exported program.
        module: The user's class where `plan.form` is "class", else the program as a module.
        plan: What is kept.
        difference: The largest relative difference between the outputs of module and program.
        stuck: Path of the module because of which the class could not follow.
        reference: What the program computes, where it waits for its weights (`lasting_reference`).
    """

    program: ExportedProgram
    module: nn.Module
    plan: Plan
    difference: float
    stuck: str = ""
    reference: Reference | None = None

    @property
    def lasting_reference(self) -> Reference | None:
        """Return what the program computes, unless its weights were read to be changed."""
        named = self.program.state_dict
        parameters = [named[name] for name in self.program.graph_signature.parameters]
        return self.reference if all(isinstance(p, OnDemand) for p in parameters) else None


def slice_network(
    trace: Trace,
    network: Network,
    keep: Mapping[str, Sequence[int]],
    *,
    stand_ins_allowed: bool = True,
) -> Sliced:
    """Slice a network, in both forms, to the listed indices of each group; others keep all.

    Where the user's class cannot follow, single modules run their traced operators, if that is
    allowed; else the program is delivered. The traced network is not changed.

    Args:
        trace: The traced network.
        network: Its analysis.
        keep: Group name -> kept indices.
        stand_ins_allowed: Whether single modules may run their traced operators.

    Raises:
        CompressorError: Groups that are to be of one size keep unequal numbers, or the sliced
            program does not fit together (a wrong rule).
    """
    _require_level(network, keep)
    masks = network.masks(keep)
    indices = kept_indices(network, masks)
    program = slice_program(trace, network, masks, indices)
    followed = follow(
        *(trace, network, program, masks, indices), stand_ins_allowed=stand_ins_allowed
    )
    shorter = trace.shorter
    plan = Plan(
        source=source_of(trace.whole.module),
        groups=group_entries(network, keep),
        tensors=indices,
        aliases=dict(network.aliases),
        attributes=followed.attributes,
        stand_ins=followed.stand_ins,
        form="program" if followed.obstacle else "class",
        obstacle=followed.obstacle,
        silenced=network.silenced(keep),
        frozen=_frozen(trace),
        removal=None if shorter is None else shorter.removal,
    )
    return Sliced(
        *(program, followed.module, plan, followed.difference, followed.stuck),
        reference=followed.reference,
    )


def _require_level(network: Network, keep: Mapping[str, Sequence[int]]) -> None:
    """Raise an error where groups that an operator wants to be of one size are not."""
    for names in network.level:
        counts = {name: len(keep.get(name, range(network.axes[name].size))) for name in names}
        if len(set(counts.values())) > 1:
            raise CompressorError(
                f"the layers must be of one size, and would keep {list(counts.values())} channels",
                where=", ".join(counts),
                consequence="nothing is sliced, since unequal ones compute something else",
                next_step="keep as many channels of each",
            )


def _frozen(trace: Trace) -> tuple[str, ...]:
    named = trace.module.named_parameters(remove_duplicate=False)
    return tuple(sorted({name for name, _ in named} - trace.learning))


def group_entries(network: Network, keep: Mapping[str, Sequence[int]]) -> dict[str, dict[str, Any]]:
    """Return what a plan says of the groups that lose channels."""
    return {
        g.name: {"size": g.size, "role": g.role, "exact": g.exact, "keep": sorted(keep[g.name])}
        for g in network.groups
        if g.name in keep
    }


def compare(sliced: Sliced, trace: Trace, note: Callable[[str], None] = lambda text: None) -> float:
    """Return the largest relative difference between module and program on several inputs.

    Where nothing can have changed since they were made, it is what was found then. Where the
    outputs are the same for all inputs, so that comparing shows nothing, that is noted.

    Raises:
        CompressorError: They disagree.
    """
    reference, found = sliced.lasting_reference, sliced.difference
    if reference is None:
        reference = Reference(as_module(sliced.program), trace)
        worst = reference.worst_difference(sliced.module)
        require_agreement(reference, worst, "the module and the program")
        found = worst.size
    if reference.shows_nothing:
        note(
            "nothing shows that the result computes what it should: its outputs are the same for "
            "all inputs, under weights drawn anew too"
        )
    return found
