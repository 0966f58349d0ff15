"""Turn the channels of heads so that those which are kept carry as much as they can.

The logits q·k of a head are (A q)·(A⁻ᵀ k) for any A. With C = E[q qᵀ] and D = E[k kᵀ], the best
approximation of all logits by r channels a side is the truncated singular value decomposition
√C √D = U S Vᵀ, and A = √S Uᵀ C^(-1/2) makes its directions the channels (cf. CORP, arXiv
2602.05243, which fits the kept channels instead). What the values of a head add to the output is
turned likewise, D being WᵀW of the output projection. Both are linear in the stream, so A goes into
weights and biases.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from compressor.graph.axes import Axis, Bools
from compressor.graph.network import Network
from compressor.graph.programs.rebuilding import rebuild
from compressor.least_squares.head_pairs import Channels, Pair, Side, pair
from compressor.least_squares.memory import Workspace
from compressor.least_squares.positions import keep_positions
from compressor.least_squares.tracking import Read, feeds_softmax, operands, track
from compressor.least_squares.walk import Inputs, Walk, arguments_at

SMALLEST = 1e-14
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


@dataclass(frozen=True)
class Turning:
    """What became of the heads that lose channels.

    Attributes:
        program: The turned program, which computes what the original does.
        tensors: Its tensors that differ, in double precision, by name.
        turned: Where channels were turned.
        left: Names of weights that make channels of such heads and were left as they are.
    """

    program: ExportedProgram
    tensors: Mapping[str, Tensor]
    turned: Sequence[Turned]
    left: Sequence[str]


def turn_heads(
    original: ExportedProgram,
    sliced: ExportedProgram,
    network: Network,
    masks: Mapping[Axis, Bools],
    inputs: Inputs,
    workspace: Workspace | None = None,
) -> Turning:
    """Turn the heads' channels, and give the sliced program what is kept of the turned weights.

    Args:
        original: The original program; it is not changed.
        sliced: The smaller program, whose weights are changed in place.
        network: The original's analysis.
        masks: Axis -> which of its indices are kept, [size] bool.
        inputs: Gives the calibration batches; in every process all of them.
        workspace: Where it is computed, and who is told; default the CPU.
    """
    workspace = workspace or Workspace()
    channels = Channels(original, network, masks, workspace.device)
    with torch.no_grad():
        gathered = _gather(channels, inputs, workspace) if channels.producers else []
        tensors: dict[str, Tensor] = {}
        done = [each.turn(channels, tensors) for each in gathered]
        for name, tensor in tensors.items():
            sliced.state_dict[name].copy_(keep_positions(tensor, network.tensors[name], masks))
    turned = with_tensors(original, tensors)
    return Turning(turned, tensors, done, channels.left_by([each.pair for each in gathered]))


def _gather(channels: Channels, inputs: Inputs, workspace: Workspace) -> list[_Gathered]:
    """Gather the moments of all pairs; the first batch shows which there are."""
    gathered: list[_Gathered] | None = None
    batches = inputs()
    total = len(batches) if isinstance(batches, Sized) else 0
    workspace.progress(0, total, "turning heads")
    for given in batches:
        if gathered is None:
            reads = [read for _, read in _track(channels, given)]
            gathered = [_Gathered(each) for each in pair(channels, reads)]
        if not gathered:
            break
        for walk, read in _track(channels, given):
            for each in gathered:
                if each.pair.node == read.node.name and read.kind in ("product", "sum"):
                    each.add(channels, walk, read)
    return gathered or []


def _track(channels: Channels, given: Any) -> Iterator[tuple[Walk, Read]]:
    return track(channels.script, channels.producers, channels.inputs, given)


def with_tensors(program: ExportedProgram, tensors: Mapping[str, Tensor]) -> ExportedProgram:
    """Return the program with other values of some tensors; all else is shared."""
    if not tensors:
        return program
    state = dict(program.state_dict)
    for name, old in program.state_dict.items():
        if name in tensors:
            state[name] = torch.nn.Parameter(tensors[name].to(old), old.requires_grad)
    return rebuild(program, state=state)


class _Gathered:
    """The second moments of one pair's sides, summed over batches, [heads, e, e] each.

    Attributes:
        is_product: Whether two activations meet. Of the means of values, `sums` are kept too,
            [heads, copies, e], and their `count`.
    """

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        heads, _, width = pair.left.places.shape
        self.left = torch.zeros(heads, width, width, dtype=torch.float64)
        self.right = torch.zeros_like(self.left)
        self.is_product, self.count = False, 0
        self.sums = torch.zeros(pair.right.places.shape, dtype=torch.float64)

    def add(self, channels: Channels, walk: Walk, read: Read) -> None:
        """Add what a batch gives, just before the node where the sides meet."""
        values = arguments_at(walk, read.node)
        if read.right is None:
            self._add_means(values[channels.inputs[read.node.name]])
            return
        self.is_product, of = True, self.pair.heads
        heads = torch.tensor([of[number] for number in read.right[:, 0].tolist()])
        queries, keys = operands(read.node, values)
        if feeds_softmax(read.node):
            keys = keys - keys.mean(1, keepdim=True)
        self.left.index_add_(0, heads, (queries.mT @ queries).double().cpu())
        self.right.index_add_(0, heads, (keys.mT @ keys).double().cpu())

    def _add_means(self, x: Tensor) -> None:
        places = self.pair.right.places
        some = x.reshape(-1, x.shape[-1])[:, places.flatten()]
        some = some.reshape(len(some), *places.shape).permute(1, 2, 0, 3)
        self.left += (some.mT @ some).sum(1).double().cpu()
        self.sums += some.sum(2).double().cpu()
        self.count += some.shape[2]

    def turn(self, channels: Channels, tensors: dict[str, Tensor]) -> Turned:
        """Turn both sides' channels in `tensors`, in place; those that lack there are added."""
        left, right, kept = self.pair.left, self.pair.right, self.pair.kept
        for name in filter(None, (left.tensor, left.bias, right.tensor, right.bias)):
            stored = channels.script.tensors[name].detach().cpu().double()
            tensors.setdefault(name, stored.clone())
        c, d = self._moments(tensors)
        a, b, strengths = best_bases(c, d)
        places = torch.cat([kept.nonzero(), (~kept).nonzero()]).squeeze(1).argsort()
        _apply(tensors, left, a[:, places])
        _apply(tensors, right, b[:, places])
        before, after = c[:, ~kept][..., ~kept] * d[:, ~kept][..., ~kept], strengths.square()
        whole = (c * d).sum().clamp(min=1e-300)
        return Turned(
            (left.tensor, right.tensor),
            self.is_product,
            float(before.sum() / whole),
            float(after[:, int(kept.sum()) :].sum() / whole),
        )

    def _moments(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the second moments of both sides' channels, [heads, e, e]."""
        if self.is_product:
            return self.left, self.right
        right = self.pair.right
        means = self.sums / max(1, self.count)
        centred = self.left - self.count * torch.einsum("gce,gcf->gef", means, means)
        weight = tensors[right.tensor].movedim(right.dim, 0)[right.places]
        return centred, torch.einsum("gceo,gcfo->gef", weight, weight)


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
