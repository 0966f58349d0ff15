"""Turn the channels of heads so that those which are kept carry as much as they can.

The logits q·k of a head are (A q)·(A⁻ᵀ k) for any A. With C = E[q qᵀ] and D = E[k kᵀ], the best
approximation of all logits by r channels a side is the truncated singular value decomposition
√C √D = U S Vᵀ, and A = √S Uᵀ C^(-1/2) makes its directions the channels (cf. CORP, arXiv
2602.05243, which fits the kept channels instead). What the values of a head add to the output is
turned likewise, D being WᵀW of the output projection. Both are linear in the stream, so A goes into
weights and biases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.export import ExportedProgram

from compressor.graph.axes import Axis, Bools
from compressor.graph.network import Network
from compressor.least_squares.head_pairs import Channels, Pair, Side, pair
from compressor.least_squares.moments import Inputs, arguments_at
from compressor.least_squares.tracking import Read, feeds_softmax, operands, track
from compressor.least_squares.walk import Walk

SMALLEST = 1e-12
"""The least share of the largest variance that a direction counts with, so that A has an
inverse."""


@dataclass(frozen=True)
class Turned:
    """The channels of heads that were turned where two weights meet.

    Attributes:
        tensors: Names of the two weights.
        is_product: Whether two activations meet (queries and keys).
        before: Share of the product's mean square that is lost with the dropped channels.
        after: The same after turning.
    """

    tensors: tuple[str, str]
    is_product: bool
    before: float
    after: float


def turn_heads(
    program: ExportedProgram,
    network: Network,
    masks: Mapping[Axis, Bools],
    inputs: Inputs,
) -> tuple[dict[str, Tensor], list[Turned]]:
    """Return the weights with the channels of heads turned, and where that was done.

    The network computes the same with them; the program is not changed.

    Args:
        program: The original program.
        network: Its analysis.
        masks: Axis -> which of its indices are kept, [size] bool.
        inputs: Gives the calibration batches.

    Returns:
        The tensors that differ, by name.
    """
    channels = Channels(program, network, masks)
    if not channels.producers:
        return {}, []
    gathered: dict[tuple[str, str], _Gathered] = {}
    pairs: list[Pair] | None = None
    with torch.no_grad():
        for given in inputs():
            if pairs is None:
                reads = [read for _, read in _track(channels, given)]
                pairs = pair(channels, reads)
                gathered = {(p.node, p.left.tensor): _Gathered(p) for p in pairs}
            wanted: dict[str, list[_Gathered]] = {}
            for each in gathered.values():
                wanted.setdefault(each.pair.node, []).append(each)
            for walk, read in _track(channels, given) if gathered else ():
                if read.kind in ("product", "sum"):
                    for each in wanted.get(read.node.name, ()):
                        each.add(channels, walk, read)
        turned: dict[str, Tensor] = {}
        done = []
        for each in gathered.values():
            done.append(each.turn(channels, turned))
    return turned, done


def _track(channels: Channels, given: object):  # type: ignore[no-untyped-def]
    return track(channels.script, channels.producers, channels.inputs, given)


class _Gathered:
    """The second moments of one pair's sides, summed over batches, [heads, e, e] each."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        heads, _, width = pair.left.places.shape
        self.left = torch.zeros(heads, width, width, dtype=torch.float64)
        self.right = torch.zeros_like(self.left)
        self.sums: Tensor | float = 0.0
        self.count = 0

    def add(self, channels: Channels, walk: Walk, read: Read) -> None:
        """Add what a batch gives, just before the node where the sides meet."""
        values = arguments_at(walk, read.node)
        if read.kind == "product":
            assert read.right is not None
            of = self.pair.heads
            heads = torch.tensor([of[int(number)] for number in read.right[:, 0]])
            left, right = operands(read.node, values)
            if feeds_softmax(read.node):
                right = right - right.mean(1, keepdim=True)
            self.left.index_add_(0, heads, (left.mT @ left).double().cpu())
            self.right.index_add_(0, heads, (right.mT @ right).double().cpu())
            return
        x = values[channels.inputs[read.node.name]]
        places = self.pair.right.places
        some = x.reshape(-1, x.shape[-1])[:, places.flatten()]
        some = some.reshape(len(some), *places.shape).permute(1, 2, 0, 3)
        self.left += (some.mT @ some).sum(1).double().cpu()
        self.sums = self.sums + some.sum(2).double().cpu()
        self.count += some.shape[2]

    def turn(self, channels: Channels, turned: dict[str, Tensor]) -> Turned:
        """Turn both sides' channels among the tensors in `turned`, in place."""
        left, right = self.pair.left, self.pair.right
        script = channels.script
        for name in filter(None, (left.tensor, left.bias, right.tensor, right.bias)):
            turned.setdefault(name, script.tensors[name].detach().double().clone())
        c, d = self.left, self.right
        if isinstance(self.sums, Tensor):
            means = self.sums / self.count
            c = c - self.count * torch.einsum("gce,gcf->gef", means, means)
            weight = turned[right.tensor].movedim(right.dim, 0)[right.places]
            d = torch.einsum("gceo,gcfo->gef", weight, weight)
        kept = self.pair.kept
        a, b, strengths = best_bases(c, d)
        order = torch.cat([kept.nonzero(), (~kept).nonzero()]).squeeze(1)
        places = order.argsort()
        _apply(turned, left, a[:, places])
        _apply(turned, right, b[:, places])
        whole = _energy(c, d)
        lost = ~kept.repeat(len(c), 1)
        gone = (torch.diag_embed(lost.double()) @ d @ torch.diag_embed(lost.double()))
        count = int(kept.sum())
        after = strengths[:, count:].square().sum() / whole
        before = _energy(c, gone) / whole
        names = (left.tensor, right.tensor)
        return Turned(names, not isinstance(self.sums, Tensor), float(before), float(after))


def _energy(c: Tensor, d: Tensor) -> Tensor:
    """Return the sum over heads of E[(q·k)²] for independent q and k of these moments."""
    return (c * d).sum().clamp(min=1e-300)


def best_bases(c: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return A and A⁻ᵀ, [heads, e, e], whose first rows keep most of E[(q·k)²], and S, [heads, e].

    Args:
        c: Second moments of one side, [heads, e, e].
        d: Second moments of the other.
    """
    (root_c, inverse_c), (root_d, inverse_d) = _roots(c), _roots(d)
    u, s, vt = torch.linalg.svd(root_c @ root_d)
    scale = s.sqrt().unsqueeze(2)
    return scale * (u.mT @ inverse_c), scale * (vt @ inverse_d), s


def _roots(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Return the square roots of symmetric matrices, and their inverses."""
    values, vectors = torch.linalg.eigh(moments)
    least = SMALLEST * values[:, -1:].clamp(min=1e-300)
    roots = torch.maximum(values, least).sqrt().unsqueeze(1)
    return (vectors * roots) @ vectors.mT, (vectors / roots) @ vectors.mT


def _apply(turned: Mapping[str, Tensor], side: Side, matrices: Tensor) -> None:
    """Multiply a side's channels by each head's matrix, in place."""
    for name, dim in ((side.tensor, side.dim), (side.bias, 0)):
        if not name:
            continue
        rows = turned[name].movedim(dim, 0)
        old = rows[side.places]
        rows[side.places] = torch.einsum("gef,gcf...->gce...", matrices, old)
