"""Score channels by reconstruction: what the rest cannot make up for, per unit of cost."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from compressor.graph.axes import coordinates
from compressor.graph.network import Network
from compressor.graph.programs.lifting import stored_tensors
from compressor.least_squares.elimination import Elimination, eliminate
from compressor.least_squares.ledger import DOUBLE_PRECISION, Ledger
from compressor.least_squares.measuring import Measured, Measurer
from compressor.least_squares.memory import Memory, Workspace
from compressor.least_squares.pieces import GroupConsumers, Name
from compressor.least_squares.walk import Inputs
from compressor.listing import some_of
from compressor.records import Group, Trace

Floats = npt.NDArray[np.float64]


def reconstruction_scores(
    trace: Trace,
    network: Network,
    inputs: Inputs,
    workspace: Workspace | None = None,
    *,
    of: str | None = "macs",
) -> dict[str, Floats]:
    """Score the channels of all groups by the error that is left after a least-squares re-fit.

    A channel's score is the error that its elimination adds, relative to the variance of what the
    consumers disturb, per share of the network's cost that it saves. Consumers that are no
    regression here (recurrent layers, products of activations) count with the share of their
    weights' energy. Where a group's consumers have too many features for the memory, each is taken
    apart into columns of several channels, which cannot make up for columns of other parts. Both
    are noted.

    Args:
        trace: The traced network.
        network: Its analysis.
        inputs: Gives the calibration batches anew, each a call of the network.
        workspace: Where it is computed, and who is told; default the CPU.
        of: The unit of cost; None leaves errors as they are, where the budget weighs the savings.

    Returns:
        Group name -> scores, [size] float64; high is important.
    """
    workspace = workspace or Workspace()
    workspace = replace(workspace, memory=workspace.memory.without_walks())
    groups = [group for group in network.groups if group.size > 1]
    measurer = Measurer(trace, network, inputs, workspace)
    shares = [measurer.share(group) for group in groups]
    _tell(shares, workspace.note)
    packs = list(_pack(shares, workspace.memory))
    ledger = Ledger(workspace.progress, measurer.work_of(packs) + sum(map(_work, shares)))
    measurer.find_salience(ledger)
    scores: dict[str, Floats] = {}
    for together in packs:
        measured = measurer(together, ledger)
        last = {piece.name: share for share in together for piece, _ in share.pieces}
        for share in together:
            ledger.begin(f"ordering the channels of {share.group.name}")
            done = {name for name, group in last.items() if group is share}
            price = price_of(network, share.group, of)
            order = _order(trace, network, share, measured, done)
            scores[share.group.name] = order.scores() / price
            ledger.add(_work(share), "")
    alone = {g.name: np.ones(g.size) for g in network.groups if g.name not in scores}
    return scores | alone


def _tell(shares: Sequence[GroupConsumers], note: Callable[[str], None]) -> None:
    parted = [share.group.layer for share in shares if share.is_parted]
    if parted:
        note(
            "the memory is too small to choose at once among the channels of "
            f"{some_of(dict.fromkeys(parted))}: their consumers were looked at in parts (--memory)"
        )
    alone = [share.group.layer for share in shares if not share.pieces]
    if alone:
        note(
            f"nothing that consumes the channels of {some_of(dict.fromkeys(alone))} is a linear "
            "regression: they are ranked by the energy of their weights"
        )


def _pack(shares: Sequence[GroupConsumers], memory: Memory) -> Iterator[list[GroupConsumers]]:
    """Yield lists of groups whose moments fit into the memory together, while one is ordered."""
    together: list[GroupConsumers] = []
    for share in shares:
        if together and _bytes([*together, share]) > memory.moments:
            yield together
            together = []
        together.append(share)
    if together:
        yield together


def _bytes(shares: Sequence[GroupConsumers]) -> int:
    held = {piece.name: piece.size for share in shares for piece, _ in share.pieces}
    gathered = sum(size.gathered_bytes for size in held.values())
    return gathered + max(share.ordering_bytes for share in shares)


def _work(share: GroupConsumers) -> float:
    """Estimate the multiply-adds of ordering a group's channels."""
    return DOUBLE_PRECISION * sum(piece.size.work_to_eliminate for piece, _ in share.pieces)


def price_of(network: Network, group: Group, of: str | None) -> float:
    """Return the share of the network's cost that one channel of a group makes up."""
    if of is None:
        return 1.0
    whole = network.cost.of(of)
    less = network.cost.of(of, network.sizes({group.name: group.size - 1}))
    return max(whole - less, 1) / whole


def _order(
    trace: Trace,
    network: Network,
    share: GroupConsumers,
    measured: Measured,
    done: Collection[Name],
) -> Elimination:
    """Order a group's channels; pieces that are done with it are needed no more."""
    group = share.group
    energies = [_energy(trace, network, group, tensor) for tensor in share.weighed]
    total = np.sum(energies, axis=0) if energies else np.zeros(group.size)
    if not share.pieces:
        order = np.argsort(total, kind="stable")
        return Elimination(order, total[order])
    regressions = (
        measured.regression(piece, again=piece.name not in done).of(channel)
        for piece, channel in share.pieces
    )
    found = eliminate(regressions, group.size)
    if not energies:
        return found
    errors = found.errors + total[found.order]
    order = np.argsort(errors, kind="stable")
    return Elimination(found.order[order], errors[order])


def _energy(trace: Trace, network: Network, group: Group, tensor: str) -> Floats:
    """Return the share of a weight's energy that is in each channel, [size]."""
    weight = stored_tensors(trace.program)[tensor].detach().double().square()
    total = np.zeros(group.size)
    for member in (m for m in group.members if m.tensor == tensor):
        others = [d for d in range(weight.dim()) if d != member.dim]
        sums = (weight.sum(others) if others else weight).cpu().numpy()
        index = coordinates(network.tensors[tensor][member.dim], network.axes[group.name])
        inside = index >= 0
        total += np.bincount(index[inside], weights=sums[inside], minlength=group.size)
    return total / max(float(weight.sum()), 1e-30)
