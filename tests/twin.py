"""The masked twin: the dense network with the dropped positions zeroed where they are consumed."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from cases import CASES, Case
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.graph.analysis import analyse
from compressor.graph.axes import keep_mask
from compressor.graph.network import Network
from compressor.graph.programs.redraw import drawable, redraw_
from compressor.graph.trace import trace
from compressor.records import ExampleInputs, Trace
from compressor.slicing import ProgramModule, Sliced, as_module, learn, slice_network

Keep = dict[str, tuple[int, ...]]

EXACT = frozenset({"channels", "heads"})
"""Roles whose channels can be dropped without touching a statistic or a contraction of two
activations."""


@dataclass(frozen=True)
class Analysed:
    """A live network in float64 with its trace and what the analysis found."""

    case: Case
    model: nn.Module
    trace: Trace
    network: Network


@cache
def analysed(name: str) -> Analysed:
    """A network of the table, analysed once for all tests; nobody changes it."""
    return analysed_case(CASES[name])


def analysed_case(case: Case) -> Analysed:
    model = live(case.build())
    traced = trace(model, ExampleInputs(case.inputs(2)))
    return Analysed(case, model, traced, analyse(traced))


def live(model: nn.Module, seed: int = 0) -> nn.Module:
    """In float64, with weights drawn anew."""
    model = model.double().eval()
    redraw_(drawable(model), seed)
    return model


def dense_program(of: Analysed) -> ProgramModule:
    """The traced program as a module with parameters of its own, which learn as the model's do."""
    module = as_module(copy.deepcopy(of.trace.program))
    learn(module, of.trace.learning)
    return module


def random_keep(network: Network, seed: int, roles: Collection[str] = EXACT) -> Keep:
    """Between one and all but one of each group's indices, everywhere another number, but for
    groups that keep equal ones."""
    rng = np.random.default_rng(seed)
    keep: Keep = {}
    for group in network.groups:
        if group.role in roles:
            count = int(rng.integers(1, group.size))
            names = next((names for names in network.level if group.name in names), ())
            level = [keep[name] for name in names if name in keep]
            count = len(level[0]) if level else count
            keep[group.name] = tuple(sorted(int(i) for i in rng.permutation(group.size)[:count]))
    return keep


def sliced(of: Analysed, keep: Keep) -> Sliced:
    return slice_network(of.trace, of.network, keep)


def masked_twin(of: Analysed, keep: Keep) -> nn.Module:
    """A dense copy that ignores what `keep` drops: zero columns in every consumer, and zero
    queries for the widths that two activations contract."""
    network, twin = of.network, copy.deepcopy(of.model)
    tensors = dict(twin.named_parameters())
    masks = network.masks(keep)
    with torch.no_grad():
        for group in network.groups:
            for member in group.members if group.name in keep else ():
                lost = torch.from_numpy(
                    ~keep_mask(network.tensors[member.tensor][member.dim], masks)
                )
                if member.contracted:
                    tensors[member.tensor].index_fill_(member.dim, lost.nonzero()[:, 0], 0)
                elif group.role == "head_width" and member.dim == 0:
                    rows = (of.case.queries or {}).get(member.tensor, slice(0))
                    tensors[member.tensor][rows][lost[rows]] = 0
    return twin


def outputs(model: nn.Module, *inputs: Tensor) -> list[Tensor]:
    with torch.no_grad():
        leaves = pytree.tree_leaves(model(*inputs))
        return [y.detach() for y in leaves if isinstance(y, Tensor)]


def assert_alive(model: nn.Module, case: Case) -> None:
    """The outputs vary, and differ between inputs: agreeing with it means something."""
    for one, other in zip(
        outputs(model, *case.inputs(2, 1)), outputs(model, *case.inputs(2, 2)), strict=True
    ):
        assert one.isfinite().all()
        scale = one.abs().max()
        assert one.std() > 1e-3 * scale
        assert (one - other).abs().max() > 1e-3 * scale
        assert (one[0] - one[1]).abs().max() > 1e-3 * scale


def assert_same(expected: nn.Module, found: nn.Module, case: Case, within: float = 1e-10) -> None:
    """Both compute the same on two inputs and two batch sizes. Each output channel (dimension 1) is
    held against its own largest value, or a millionth of the whole's where it is smaller."""
    for batch, seed in ((2, 1), (3, 2)):
        inputs = case.inputs(batch, seed)
        for a, b in zip(outputs(expected, *inputs), outputs(found, *inputs), strict=True):
            assert a.shape == b.shape
            others = [dim for dim in range(a.dim()) if dim != 1]
            scale = a.abs().amax(others, keepdim=True) if others else a.abs()
            scale = scale.clamp_min(1e-6 * float(a.abs().max()))
            assert float(((a - b).abs() / scale).max()) <= within


def assert_smaller(found: Sliced, of: Analysed, keep: Mapping[str, Collection[int]]) -> None:
    """Something was dropped, and the sliced tensors are as small as the cost model says."""
    sizes = of.network.sizes({name: len(kept) for name, kept in keep.items()})
    params = sum(p.numel() for p in found.module.parameters())
    assert params == of.network.cost.params(sizes) < of.network.cost.params()
