"""A masked network, full-sized with zeros, computes what the sliced one computes, in float64."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import test_zoo
import torch
import torch.nn.functional as F
from cases import CASES, Case
from test_zoo import known
from tiny import sequential
from torch import Tensor, nn
from twin import EXACT, Analysed, analysed, analysed_case, assert_same, random_keep, sliced
from zoo import MEMBERS

import compressor
from compressor.errors import CompressorError
from compressor.records import Plan
from compressor.slicing import slice_network
from compressor.slicing.masking import Masked, masked, silence
from compressor.slicing.weights import named_tensors

HEAD_WIDTHS = [name for name, case in CASES.items() if case.queries]
FREE = "closure_over_a_layer"
"""Its consumer is no tensor of the module."""

COMPUTED = {"weight_norm", "weight_norm_old"}
"""Traced by the tensors that weights are computed from; `masked` makes weights plain before."""


def both(of: Analysed, seed: int, roles: frozenset[str] = EXACT) -> tuple[Masked, nn.Module]:
    """The network with the same random choice masked, and sliced."""
    small = sliced(of, random_keep(of.network, seed, roles))
    return masked(of.model, small.plan), small.module


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", CASES)
def test_it_computes_what_slicing_computes(name: str, seed: int) -> None:
    of = analysed(name)
    found, small = both(of, seed)
    assert found.approximate == ()
    assert found.rows
    assert_same(small, found.module, of.case)


@pytest.mark.parametrize("name", HEAD_WIDTHS)
def test_what_two_activations_contract_falls_silent_where_it_is_made(name: str) -> None:
    of = analysed(name)
    found, small = both(of, 0, EXACT | {"head_width"})
    assert set(found.approximate) == {g.name for g in of.network.groups if g.role == "head_width"}
    assert_same(small, found.module, of.case)


@pytest.mark.parametrize("name", sorted(MEMBERS.keys() - {FREE} - COMPUTED))
def test_hand_made_networks_too(name: str) -> None:
    """Where a group is said to be exact, it is."""
    of = known(name)
    exact = {group.name for group in of.network.groups if group.exact}
    keep = {n: k for n, k in random_keep(of.network, len(name)).items() if n in exact}
    assert keep.keys() == {g.name for g in of.network.groups if g.role in EXACT}
    if keep:
        small = slice_network(of.trace, of.network, keep)
        found = masked(of.model, small.plan)
        assert found.approximate == ()
        test_zoo.assert_same(small.module, found.module, of.inputs())


def test_a_group_behind_a_statistic_is_said_to_be_approximate() -> None:
    of = analysed("normed_mlp")
    found, small = both(of, 0, frozenset({"stream"}))
    assert found.approximate == ("embed.weight:0 stream",)
    with pytest.raises(AssertionError):
        assert_same(small, found.module, of.case)


class Adapted(nn.Module):
    """The weight that consumes is computed from parameters."""

    def __init__(self, weight: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(5, 9), nn.Linear(9, 4)
        self.change = nn.Parameter(torch.randn(4, 9))
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.stem(x).sigmoid(), self.weight(self.head.weight, self.change))


@pytest.mark.parametrize(
    ("weight", "exact", "same"),
    [
        (lambda w, change: w * change, True, True),
        (lambda w, change: w.t().contiguous().t() * change.clone(), True, True),
        (lambda w, change: w + change, False, True),
        (lambda w, change: torch.cat((w[:2], change[2:])), False, True),
        (lambda w, change: w + change.exp(), False, False),
        (lambda w, change: w.exp() * change, False, True),
    ],
)
def test_a_computed_weight_is_approximate_unless_zeros_stay_zeros(
    weight: Callable[[Tensor, Tensor], Tensor], exact: bool, same: bool
) -> None:
    of = analysed_case(Case(lambda: Adapted(weight), (5,)))
    found, small = both(of, 0)
    (name,) = (g.name for g in of.network.groups if "stem.bias" in {m.tensor for m in g.members})
    assert (name not in found.approximate) == exact
    if same:
        assert_same(small, found.module, of.case)
    else:
        with pytest.raises(AssertionError):
            assert_same(small, found.module, of.case)


class MixedKernels(nn.Module):
    """Each sample's kernel is a mixture of experts': the batch stands in the groups."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(6, 4, 1)
        self.route, self.made = nn.Linear(5, 3), 6
        self.experts = nn.Parameter(torch.randn(3, 30))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        n, channels, height, width = x.shape
        kernel = (self.route(x.mean((2, 3))).sigmoid() @ self.experts).view(-1, channels, 1, 1)
        x = F.conv2d(x.reshape(1, n * channels, height, width), kernel, groups=n)
        return self.out(F.relu(x.view(n, self.made, height, width)))


def test_what_consumes_by_a_kernel_made_of_data_is_silenced_everywhere() -> None:
    of = analysed_case(Case(MixedKernels, (3, 6, 6)))
    assert sorted(group.size for group in of.network.groups) == [3, 5, 6]
    found, small = both(of, 0)
    assert [g.size for g in of.network.groups if g.name in found.approximate] == [5]
    assert_same(small, found.module, of.case)


# -- the table, and what stays as it was ---------------------------------------------------------


def test_the_table_counts_columns_and_zeros() -> None:
    of = analysed("residual")
    keep = {"a.weight:0": (0, 2, 5)}
    found = masked(of.model, sliced(of, keep).plan)
    (row,) = found.rows
    assert (row.layer, row.tensor, row.kept, row.total) == ("b", "b.weight", 3, 6)
    assert row.sparsity == pytest.approx(1 / 2)
    assert float(found.module.b.weight[:, [1, 3, 4]].abs().max()) == 0
    assert torch.equal(found.module.a.weight, of.model.a.weight)


def test_the_model_is_not_changed() -> None:
    of = analysed("residual")
    before = {name: tensor.clone() for name, tensor in of.model.state_dict().items()}
    both(of, 0)
    assert all(torch.equal(before[name], t) for name, t in of.model.state_dict().items())


def test_masks_in_place_are_undone_even_after_an_error() -> None:
    model = sequential()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    places = {"3.weight": {0: [1], 1: [0, 2]}, "7.weight": {1: [3]}}
    with pytest.raises(ZeroDivisionError), silence(named_tensors(model), places):
        assert not model[3].weight[1].any()
        assert not model[3].weight[:, [0, 2]].any()
        assert not model[7].weight[:, 3].any()
        raise ZeroDivisionError
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


# -- plans ---------------------------------------------------------------------------------------


def test_a_plan_comes_back_from_its_file(tmp_path: Path) -> None:
    of = analysed("separate_attention")
    plan = sliced(of, random_keep(of.network, 0, EXACT | {"head_width"})).plan
    (tmp_path / "plan.json").write_text(plan.to_json())
    assert Plan.from_json(plan.to_json()) == dataclasses.replace(
        plan, groups=json.loads(json.dumps(plan.groups))
    )
    from_folder = compressor.masked(of.model, tmp_path)
    assert from_folder.rows == masked(of.model, plan).rows


def assert_refused(model: nn.Module, plan: Plan | Path, says: str) -> None:
    with pytest.raises(CompressorError, match=says) as refused:
        masked(model, plan)
    assert refused.value.consequence
    assert refused.value.next_step


def test_plans_that_cannot_be_masked_are_refused(tmp_path: Path) -> None:
    of = analysed("residual")
    plan = sliced(of, random_keep(of.network, 0)).plan
    assert_refused(sequential(), plan, "another network")
    old = json.loads(plan.to_json())
    del old["silenced"]
    (tmp_path / "plan.json").write_text(json.dumps(old))
    assert_refused(of.model, tmp_path, "does not say where zeros stand")
    assert_refused(of.model, tmp_path / "nowhere", "no plan to read")


def test_a_consumer_that_is_no_tensor_of_the_module_is_refused() -> None:
    of = known(FREE)
    plan = slice_network(of.trace, of.network, random_keep(of.network, 0)).plan
    assert_refused(of.model, plan, "a constant in the network's code")
