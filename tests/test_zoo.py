"""The hand-made networks: every axis that can shrink does, and what is left computes the same."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from compact import CompactTwin
from torch import nn
from torch_version import IS_2_11
from twin import Keep, live, masked_twin, random_keep
from zoo import MEMBERS, Member

from compressor.agreement import difference, is_live
from compressor.graph.analysis import analyse
from compressor.graph.counting import count_macs
from compressor.graph.network import Network
from compressor.graph.trace import trace
from compressor.records import ExampleInputs, Trace
from compressor.slicing import as_module, slice_network
from compressor.slicing.compare import outputs_of
from compressor.slicing.program import slice_program

ROLES = {
    "channels and heads": ("channels", "heads"),
    "head widths": ("head_width",),
    "streams": ("stream",),
    "everything": ("channels", "heads", "head_width", "stream"),
}


def case(name: str, *more: str, is_slow: bool = False) -> Any:
    """A test's parameters, with an id that says them."""
    marks = pytest.mark.slow if is_slow else ()
    return pytest.param(name, *more, id="-".join((name, *more)), marks=marks)


NAMES = [case(name) for name in MEMBERS]
CHOICES = [
    # a part of what can go is a slow test where all of it at once is a fast one
    case(name, roles, is_slow=roles != "everything" and len(member.prunable) > 1)
    for name, member in MEMBERS.items()
    for roles, listed in ROLES.items()
    if set(listed) & set(member.prunable) and (roles != "everything" or len(member.prunable) > 1)
]


@dataclass(frozen=True)
class Known:
    """A member in float64 with live weights, analysed."""

    member: Member
    model: nn.Module
    trace: Trace
    network: Network

    def inputs(self) -> list[ExampleInputs]:
        """Two inputs as traced and, where the batch is free, one of another batch size."""
        sizes = ((2, 1), (2, 2), (3, 3)) if self.trace.batch_symbol else ((2, 1), (2, 2))
        return [self.member.inputs(batch, seed) for batch, seed in sizes]


@cache
def known(name: str) -> Known:
    torch.manual_seed(0)
    member = MEMBERS[name]
    model = live(member.build())
    traced = trace(model, member.inputs())
    return Known(member, model, traced, analyse(traced))


def assert_same(expected: nn.Module, found: nn.Module, inputs: list[ExampleInputs]) -> None:
    """Equal outputs, and not because they are constant."""
    outputs = [outputs_of(expected, example) for example in inputs]
    assert is_live(outputs)
    assert difference(outputs, [outputs_of(found, example) for example in inputs]).size <= 1e-10


@pytest.mark.parametrize("name", NAMES)
def test_what_can_shrink_is_found(name: str) -> None:
    sizes: dict[str, list[int]] = defaultdict(list)
    for group in known(name).network.groups:
        sizes[group.role].append(group.size)
    assert {role: tuple(sorted(found)) for role, found in sizes.items()} == MEMBERS[name].prunable


@pytest.mark.parametrize("name", NAMES)
def test_the_twin_without_drops_is_the_model(name: str) -> None:
    of = known(name)
    assert_same(of.model, CompactTwin(of.trace, of.network, {}), of.inputs())


@pytest.mark.parametrize(("name", "roles"), CHOICES)
def test_what_is_left_computes_the_same(name: str, roles: str) -> None:
    if IS_2_11 and (name, roles) == ("cross_attention", "everything"):
        pytest.skip("torch 2.11 refuses a view of heads that are one wide")
    of = known(name)
    keep = random_keep(of.network, len(name), ROLES[roles])
    small = slice_network(of.trace, of.network, keep)
    twin = CompactTwin(of.trace, of.network, keep)
    assert_same(twin, as_module(small.program), of.inputs())
    assert_same(twin, small.module, of.inputs())
    assert_counted(of, keep, as_module(small.program))
    thrown_away = slice_program(of.trace, of.network, of.network.masks(keep), only_to_run=True)
    assert_same(twin, as_module(thrown_away), of.inputs())


def assert_counted(of: Known, keep: Keep, small: nn.Module) -> None:
    """Multiply-adds and parameters are the predicted ones."""
    sizes = of.network.sizes({name: len(kept) for name, kept in keep.items()})
    cost = of.network.cost
    assert sum(p.numel() for p in small.parameters()) == cost.params(sizes) < cost.params()
    samples = 1 if of.trace.batch_symbol else of.trace.batch
    given = of.member.inputs(1) if of.trace.batch_symbol else of.trace.examples
    assert count_macs(small, given.args, given.kwargs) // samples == cost.macs(sizes)
    assert cost.macs(sizes) < cost.macs()


def test_a_head_that_only_training_sees_follows() -> None:
    of = known("auxiliary_head")
    keep = random_keep(of.network, 0)
    small = slice_network(of.trace, of.network, keep)
    assert small.plan.form == "class"
    twin = masked_twin(of, keep).train()
    assert len(outputs_of(twin, of.inputs()[0])) == 2
    assert_same(twin, small.module.train(), of.inputs())
