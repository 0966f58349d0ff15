"""Mask a network: silence the dropped channels in the dense network, as slicing would remove them.

Dropped positions are zeroed where they are summed over. Biases and norms behind them are left
alone, so nothing depends on what the channels would have been. Where that is not exact (a statistic
over the channels, the product of two activations, weights that are computed from parameters), the
layers that make the channels are zeroed too, and the group is named as approximate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from compressor.errors import CompressorError
from compressor.files.folder import PLAN
from compressor.graph.mixtures import EXPERTS
from compressor.graph.trace import copy_detached, copy_to_cpu
from compressor.listing import some_of
from compressor.loading.plain import make_plain
from compressor.modules import unwrap
from compressor.records import Plan
from compressor.slicing import check_source
from compressor.slicing.patch import remove
from compressor.slicing.plan_file import read_plan
from compressor.slicing.weights import named_tensors
from compressor.unexpected import Explaining

Places = Mapping[str, Mapping[int, Sequence[int]]]
"""Tensor -> dimension -> the positions that are zero."""


@dataclass(frozen=True)
class MaskedTensor:
    """One row of the table of a masked network: how much of a tensor is zero.

    Attributes:
        layer: Path of the layer that owns the tensor.
        tensor: The tensor's name.
        kept: Number of columns that are left.
        total: Number of columns in the dense tensor.
        sparsity: Share of the tensor's numbers that are zero, between 0 and 1.
    """

    layer: str
    tensor: str
    kept: int
    total: int
    sparsity: float


@dataclass(frozen=True)
class Masked:
    """A dense network that computes what the sliced one does before repair and fine-tuning.

    Attributes:
        module: A copy of the network with zeros, on the CPU, in eval mode, without gradients.
        rows: One row for each tensor with zeros; a layer with several such tensors has several.
        approximate: Groups for which zeros are only close to dropping: a statistic such as a
            LayerNorm's counts them, or two activations are multiplied.
    """

    module: nn.Module
    rows: tuple[MaskedTensor, ...]
    approximate: tuple[str, ...]


def masked(model: nn.Module, plan: Plan | str | Path) -> Masked:
    """Return a copy of the dense network in which the channels that a plan drops are silenced.

    Blocks that the plan takes out are gone from it: their branches are zero.

    Args:
        model: The network as it was before it was compressed; it is not changed.
        plan: `Result.plan`, or the export folder that holds it.

    Raises:
        CompressorError: The plan is of another network, too old to say where zeros go, or takes
            whole blocks out of modules that then run traced operators.
    """
    with Explaining():
        return _masked(model, plan if isinstance(plan, Plan) else read_plan(Path(plan) / PLAN))


def _masked(model: nn.Module, plan: Plan) -> Masked:
    _check_silenced(plan)
    _check_experts(plan)
    _check_removal(plan)
    model = make_plain(unwrap(model)[0], copy_to_cpu).module
    check_source(plan, model)
    module = copy_detached(model)
    if plan.removal is not None:
        remove(module, plan.removal, ())
    tensors = named_tensors(module)
    places = _places(plan, tensors)
    _silence(tensors, places)
    return Masked(
        module=module,
        rows=tuple(_row(name, tensors[name], places[name]) for name in places),
        approximate=tuple(name for name, group in plan.groups.items() if not group["exact"]),
    )


@contextmanager
def silence(tensors: Mapping[str, Tensor], places: Places) -> Iterator[None]:
    """Set the tensors to zero at `places` inside the block, and restore them afterwards.

    Args:
        tensors: Tensors by name; they are changed in place.
        places: Tensor -> dimension -> positions to zero.
    """
    before = {name: tensors[name].detach().clone() for name in places}
    try:
        _silence(tensors, places)
        yield
    finally:
        with torch.no_grad():
            for name, values in before.items():
                tensors[name].copy_(values)


def _silence(tensors: Mapping[str, Tensor], places: Places) -> None:
    with torch.no_grad():
        for name, dims in places.items():
            for dim, lost in dims.items():
                index = torch.tensor(lost, dtype=torch.long, device=tensors[name].device)
                tensors[name].index_fill_(dim, index, 0)


def _places(plan: Plan, tensors: Mapping[str, Tensor]) -> dict[str, dict[int, list[int]]]:
    """Return where zeros go: what the plan does not keep, in the dimensions that it silences."""
    found: dict[str, dict[int, list[int]]] = {}
    for name, dims in (plan.silenced or {}).items():
        for dim in set(dims) & plan.tensors.get(name, {}).keys():
            kept = set(plan.tensors[name][dim])
            lost = [j for j in range(_stored(tensors, name).shape[dim]) if j not in kept]
            found.setdefault(name, {})[dim] = lost
    return found


def _stored(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise CompressorError(
            "a tensor that consumes channels is a constant in the network's code",
            where=name,
            consequence="it cannot be masked; slicing handles it, since it rewrites the program",
            next_step="register it as a buffer, or use the sliced network",
        )
    return tensors[name]


def _check_silenced(plan: Plan) -> None:
    if plan.silenced is None:
        raise CompressorError(
            "the plan does not say where zeros stand for dropped channels",
            where="it was written by an earlier version",
            consequence="nothing was masked",
            next_step="compress the network again and take the new plan",
        )


def _check_experts(plan: Plan) -> None:
    """Check that no whole experts are to be masked."""
    gone = [name for name, group in plan.groups.items() if group["role"] == EXPERTS]
    if gone:
        raise CompressorError(
            "the plan takes whole experts out, and zeros do not keep a router from choosing them",
            where=some_of(gone),
            consequence="nothing was masked",
            next_step="take the sliced network, or compress without --prune experts",
        )


def _check_removal(plan: Plan) -> None:
    """Check that modules of the class alone can do without the blocks that a plan takes out."""
    if plan.removal is not None and (plan.stand_ins or plan.form != "class"):
        raise CompressorError(
            "the plan takes whole blocks out, and modules run what is left of their operators",
            where=", ".join(plan.stand_ins) or plan.obstacle,
            consequence="nothing was masked",
            next_step="choose with --search 0, so that channels alone go",
        )


def _row(name: str, tensor: Tensor, places: Mapping[int, Sequence[int]]) -> MaskedTensor:
    return MaskedTensor(
        layer=name.rpartition(".")[0] or name,
        tensor=name,
        kept=math.prod(tensor.shape[dim] - len(lost) for dim, lost in places.items()),
        total=math.prod(tensor.shape[dim] for dim in places),
        sparsity=1 - int(tensor.count_nonzero()) / tensor.numel(),
    )
