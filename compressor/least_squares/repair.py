"""Re-fit every consumer of dropped channels by least squares, in the order of execution.

Each weight is moved so that what its output is added to comes as close as it can to what it was in
the original network, given what the network computes so far with all earlier weights re-fitted
(cf. ThiNet, Luo et al. 2017, section 3.3, and channel pruning, He et al. 2017, equation 4; the
targets are the original's residual sums, so errors of earlier layers are made up for too).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.export import ExportedProgram

from compressor.graph.axes import Axis, Bools, leaves
from compressor.graph.network import Network
from compressor.least_squares.cells import write_out
from compressor.least_squares.chain import Chain
from compressor.least_squares.consumers import Contraction, Step, consumers
from compressor.least_squares.drawn_rows import Draw, in_blocks
from compressor.least_squares.layouts import blocks_of
from compressor.least_squares.ledger import Ledger
from compressor.least_squares.memory import Memory, Workspace, columns_to_solve
from compressor.least_squares.pairs import Pairs, Whole, keep_wanted
from compressor.least_squares.recurrence import CellFit
from compressor.least_squares.ridge import BY_ROWS, Form, form_for
from compressor.least_squares.walk import Inputs, Script, arguments_at

SWEEPS = 2
"""How often all parts of a consumer are re-fitted, where it is re-fitted part by part: what one
part can make up for depends on the others (Gauss-Seidel)."""


@dataclass(frozen=True)
class Refit:
    """The re-fit of one consumer's weights.

    Attributes:
        consumers: Names of the weights.
        before: Mean squared change of the output that is wanted before the re-fit, summed over
            output channels.
        after: The same after the re-fit.
        parts: In how many parts the features were re-fitted, for lack of memory.
    """

    consumers: tuple[str, ...]
    before: float
    after: float
    parts: int = 1


def refit(
    original: ExportedProgram,
    sliced: ExportedProgram,
    network: Network,
    masks: Mapping[Axis, Bools],
    inputs: Inputs,
    workspace: Workspace | None = None,
    *,
    ridge: float | None = None,
    whole: Whole | None = None,
) -> list[Refit]:
    """Re-fit the weights (and constants) of the sliced program, in place.

    A consumer is solved in the form that takes least work of those that fit into the memory. Where
    none does, it is re-fitted part by part: the weights of some features are moved by what is still
    wanted of its output, then those of the next, `SWEEPS` times.

    Args:
        original: The program that was sliced; it is not changed.
        sliced: The smaller program, which is changed.
        network: The original's analysis.
        masks: Axis -> which of its indices are kept, [size] bool.
        inputs: Gives the calibration batches anew, the same each time.
        workspace: Where it is computed, and who is told; default the CPU.
        ridge: Replaces what `RIDGE` and `OF_SHRINKAGE` say.
        whole: What `original` was before blocks were taken out of it; its values are aimed at.
    """
    workspace = workspace or Workspace()
    seed, device = workspace.seed, workspace.device
    whole = whole or Whole(original)
    todo = find_affected(original, network, masks, whole)
    pairs = Pairs(whole, Script(sliced, device), inputs, workspace.memory)
    pairs.leave_to_walks(todo)
    pairs.aim_at(todo)
    done: list[Refit] = []
    work = pairs.work_of(todo, network)
    ledger = Ledger(workspace.progress, sum(work))
    for number, consumer in enumerate(todo):
        ledger.begin(f"re-fitting {consumer.tensor}")
        if consumer.recurs:
            errors = CellFit(pairs, consumer, network, masks, seed)(ridge)
            done += [Refit(consumer.tensors, *errors)] if errors is not None else []
            pairs.aim_at(todo[number + 1 :])
            ledger.reach(sum(work[: number + 1]))
            continue
        form, parts = _how(pairs, consumer, workspace.memory, seed)
        steps: list[Step] = []
        turns = parts * (SWEEPS if len(parts) > 1 else 1)
        each = work[number] / len(turns) / ((pairs.batches() or 1) + 1)
        for part in turns:
            gathering = form.gather()
            for features, targets in _look(pairs, consumer, part, network, masks, seed):
                gathering.add(features, targets)
                ledger.add(each, f"re-fitting {consumer.tensor}")
            step = gathering.step(centred=bool(consumer.constant), ridge=ridge)
            if step is not None:
                consumer.add(step, pairs.sliced.tensors, part)
                steps.append(step)
        if steps:
            first, last = steps[0], steps[-1]
            done.append(Refit(consumer.tensors, first.before, last.after, len(parts)))
        pairs.aim_at(todo[number + 1 :])
        ledger.reach(sum(work[: number + 1]))
    _bring_home(pairs.sliced, sliced)
    return done


def find_affected(
    program: ExportedProgram,
    network: Network,
    masks: Mapping[Axis, Bools],
    whole: Whole | None = None,
) -> list[Contraction]:
    """Return the contractions that lose channels, or whose inputs depend on others that do.

    Those are affected too that stand before or after a block that was taken out. Contractions whose
    weight is shared with others are left out.
    """
    cut = {axis for axis, mask in masks.items() if not mask.all()}

    def loses(consumer: Contraction) -> bool:
        dims = [network.tensors[name][consumer.layout.contracted] for name in consumer.tensors]
        return any(axis in cut for dim in dims for axis in leaves(dim))

    contractions = consumers(program, network.aliases)
    off = {consumer.node for consumer in contractions if loses(consumer)}
    if whole is not None:
        off |= {consumer.node for consumer in contractions if consumer.target in whole.stands_for}
        off |= whole.rewired(program)
    for node in write_out(program.graph_module.graph).nodes:
        if any(source.name in off for source in node.all_input_nodes):
            off.add(node.name)
    return [consumer for consumer in contractions if not consumer.shared and consumer.node in off]


def _how(
    pairs: Pairs, consumer: Contraction, memory: Memory, seed: int
) -> tuple[Form, list[slice]]:
    """Return the form in which a consumer is solved, and the slices of features to solve.

    The features are solved all at once, or in parts of equal size where no form fits the memory.
    """
    size = pairs.size_of(consumer)
    form = form_for(size, pairs.rows_of(consumer, seed), memory)
    if form is BY_ROWS:
        return form, [slice(0, size.features)]
    count = math.ceil(size.features / columns_to_solve(memory, size.blocks, size.outputs))
    bounds = [round(i * size.features / count) for i in range(count + 1)]
    return form, [slice(*pair) for pair in itertools.pairwise(bounds)]


def _look(
    pairs: Pairs,
    consumer: Contraction,
    part: slice,
    network: Network,
    masks: Mapping[Axis, Bools],
    seed: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield, batch by batch, some features of a consumer and the change wanted of its output."""
    draw = Draw(pairs.batches() or 1, torch.Generator().manual_seed(seed), pairs.memory)
    node, target = (pairs.sliced.named[name] for name in (consumer.node, consumer.target))
    chain = Chain(pairs.sliced, consumer)
    for original, sliced in pairs.at(consumer.node):
        whole = original.reach(pairs.wanted(consumer))
        wanted = keep_wanted(whole, network, consumer, masks)
        ahead = sliced.ahead(consumer.target)
        change = chain.pull(ahead, wanted - ahead.values[target])
        blocks = blocks_of(arguments_at(sliced, node))
        features, rows = draw.features(sliced, consumer, change)
        targets = in_blocks(consumer.layout.outputs(change, rows), blocks)
        yield features[:, :, part], targets


def _bring_home(script: Script, program: ExportedProgram) -> None:
    """Copy tensors that were moved to a device back into the program, in place."""
    with torch.no_grad():
        for name, tensor in program.state_dict.items():
            if name in script.tensors and script.tensors[name] is not tensor:
                tensor.copy_(script.tensors[name])
