"""Networks that data steer: cuts at numbers in the data, functions that are given to operators."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from cases import CASES
from torch import Tensor, nn
from twin import analysed

from compressor.graph.analysis import analyse
from compressor.graph.costs import NetworkForm, costs_of, notes_on_macs
from compressor.graph.counting import count_macs
from compressor.graph.counting_by_program import macs_of_program
from compressor.graph.trace import trace
from compressor.records import ExampleInputs
from compressor.slicing import slice_network


class Steered(nn.Module):
    """Three layers, of whose first only some positions, or a chosen branch, go on."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.middle, self.down = nn.Linear(8, 32), nn.Linear(32, 16), nn.Linear(16, 4)

    def rest(self, h: Tensor) -> Tensor:
        return self.down(self.middle(h).relu()).sum(1)


def number(n: Tensor) -> Any:
    k = n.item()
    torch._check(k >= 0)
    torch._check(k <= 6)
    return k


class Cut(Steered):
    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        return self.rest(self.up(x).relu()[:, : number(n)])


class Narrowed(Steered):
    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        k = n.item()
        torch._check(k >= 0)
        torch._check(k <= 3)
        return self.rest(self.up(x).relu().narrow(1, k, 3))


class Halved(Steered):
    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        k = number(n)
        first, second = self.up(x).relu().split([k, 6 - k], 1)
        return self.rest(first) - self.rest(second)


class Chosen(Steered):
    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        h = self.middle(self.up(x).relu()).relu()
        return torch.cond(n > 2, lambda h: self.down(h), lambda h: -self.down(h), (h,))


@pytest.mark.parametrize("kind", [Cut, Narrowed, Halved])
def test_a_cut_where_data_say_is_counted_sliced_and_read_again(kind: type[Steered]) -> None:
    torch.manual_seed(0)
    model = kind().eval()
    traced = trace(model, ExampleInputs((torch.randn(2, 6, 8), torch.tensor(3))))
    network = analyse(traced)
    keep = {g.name: tuple(range(1, g.size, 2)) for g in network.groups}
    assert sorted(g.size for g in network.groups) == [16, 32]
    sliced = slice_network(traced, network, keep)
    form = NetworkForm(sliced.module, sliced.program, sliced.plan.kept)
    costs, whole = costs_of(traced, network, form), costs_of(traced, network)
    going_on = 6 if kind is Halved else 3
    assert whole.macs == 2 * (6 * 8 * 32 + going_on * (32 * 16 + 16 * 4))
    assert any("beside the batch" in note for note in notes_on_macs(traced, network))
    assert 0 < costs.macs < whole.macs / 2 and "middle" in costs.layers
    file = io.BytesIO()
    torch.export.save(sliced.program, file)
    file.seek(0)
    read = torch.export.load(file).module()
    other = torch.randn(2, 6, 8), torch.tensor(1)
    torch.testing.assert_close(read(*other), sliced.module.eval()(*other))


def test_functions_that_are_given_to_operators_are_said_not_counted() -> None:
    model = Chosen().eval()
    examples = torch.randn(2, 8), torch.tensor(3)
    traced = trace(model, ExampleInputs(examples))
    network = analyse(traced)
    assert [u.operator for u in network.uncounted] == ["cond"]
    assert [g.size for g in network.groups] == [32]
    assert costs_of(traced, network).layers == {"up": 2 * 8 * 32, "middle": 2 * 32 * 16}


@pytest.mark.parametrize("name", sorted(CASES)[::9])
def test_a_program_counts_as_the_tracer_does(name: str) -> None:
    of = analysed(name)
    inputs = of.case.inputs(2)
    layers = macs_of_program(of.trace.program, inputs, {})
    assert sum(layers.values()) == count_macs(of.model, inputs, {}) > 0
    assert layers == {name: 2 * macs for name, macs in of.network.cost.macs_by_layer().items()}


class Experts(Steered):
    """Each of two experts works on the rows that are sent to it, and is skipped without any."""

    def __init__(self, skips: bool) -> None:
        super().__init__()
        self.skips = skips
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 8)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        h = x.flatten(0, 1)
        y = torch.zeros_like(h)
        for number, expert in enumerate(self.experts):
            rows = (h[:, 0] > 0) == bool(number)
            at = rows.nonzero()[:, 0]
            if self.skips and at.numel() == 0:
                continue
            if number:
                y = y.index_put((at,), expert(h[at]), accumulate=True)
            else:
                y[rows] = y[rows] + expert(h[rows])
        return self.rest(self.up(y.view_as(x)).relu())


@pytest.mark.parametrize("skips", [False, True])
def test_what_experts_compute_on_chosen_rows_can_be_cut(skips: bool) -> None:
    torch.manual_seed(0)
    traced = trace(Experts(skips).eval(), ExampleInputs((torch.randn(2, 6, 8),)))
    assert not traced.ends_after and traced.branched == skips
    network = analyse(traced)
    assert sorted(g.size for g in network.groups) == [16, 24, 24, 32]
