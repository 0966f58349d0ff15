"""Open the run of a network that some blocks are taken out of, without scoring anything anew."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from compressor.errors import CompressorError
from compressor.graph.blocks import Block, find_blocks
from compressor.graph.network import Network
from compressor.graph.whole_layers import find_layers
from compressor.latency import layers_of
from compressor.records import Trace
from compressor.run.opened import Run
from compressor.run.rating import analyse_anew
from compressor.run.timing import Timing
from compressor.slicing.taking_out import take_out, take_out_of_program


def take_blocks_out(run: Run, blocks: Sequence[Block], *, of_program_alone: bool = False) -> Run:
    """Return the run of a network without some of its blocks; the given one is not changed.

    Channels keep the scores and steps of widths that they have in the whole network.

    Args:
        run: The whole network's.
        blocks: Blocks of it, in the order of execution.
        of_program_alone: Whether the user's class keeps all blocks, since only the program is
            looked at.
    """
    whole = run.before
    take = take_out_of_program if of_program_alone else take_out
    traced = take(whole.trace, blocks)
    network = analyse_anew(run, traced)
    names = match_groups(whole.network, network)
    return replace(
        run,
        trace=traced,
        network=network,
        scores={name: whole.scores[old] for name, old in names.items() if old in whole.scores},
        timing=_time_without(whole.timing, traced, network, names, whole.options.batch),
        whole=whole,
    )


def take_named_blocks_out(run: Run, names: Collection[str]) -> Run:
    """Return the run of a network without the blocks of these names, as `take_blocks_out` does.

    Raises:
        CompressorError: The network has no such blocks.
    """
    program = run.before.trace.program
    blocks = {block.name: block for block in (*find_layers(program), *find_blocks(program))}
    missing = [name for name in names if name not in blocks]
    if missing:
        raise CompressorError(
            f"the network has no block {missing[0]}",
            where="the plan's removal",
            consequence="nothing was cut",
            next_step="give the plan as compress wrote it, and the --input it was made with",
        )
    return take_blocks_out(run, [block for name, block in blocks.items() if name in names])


def match_groups(
    whole: Network, smaller: Network, kept: Mapping[str, int] | None = None
) -> dict[str, str]:
    """Map the groups of a smaller network to the whole one's, by what they are made of.

    A group is named after the first layer that makes its channels, which may be gone. Groups that
    have become others are left out.

    Args:
        whole: The analysis of the whole network.
        smaller: That of a network that lacks blocks or channels of it.
        kept: Group of the whole network -> how many channels are left of it; all of others.
    """
    places = {
        (member.tensor, member.dim, group.role): group.name
        for group in whole.groups
        for member in group.members
    }
    sizes = {group.name: group.size for group in whole.groups} | dict(kept or {})
    matches = {}
    for group in smaller.groups:
        olds = (places.get((m.tensor, m.dim, group.role)) for m in group.members)
        old = next((old for old in olds if old and sizes[old] == group.size), None)
        if old is not None:
            matches[group.name] = old
    return matches


def _time_without(
    timing: Timing, traced: Trace, network: Network, names: Mapping[str, str], batch: int
) -> Timing:
    steps, clock = timing.steps, timing.clock
    if not isinstance(steps, int):
        steps = {name: steps.get(names.get(name, ""), 1) for name in network.axes}
    if clock is not None:
        clock = clock.of_layers(layers_of(traced, network, batch))
    return replace(timing, steps=steps, clock=clock)
