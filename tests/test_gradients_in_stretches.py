"""Gradients at consumers are the same, however many stretches a program is run in."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from compressor.calls import Call
from compressor.graph.analysis import analyse
from compressor.graph.trace import trace
from compressor.least_squares.consumers import consumers
from compressor.least_squares.divergence import Divergence
from compressor.least_squares.gradients import gradients_at
from compressor.least_squares.memory import Memory, Workspace
from compressor.least_squares.salience import gradients_at_once, salience, samples_of, stakes
from compressor.least_squares.walk import Script
from compressor.records import ExampleInputs, Trace


class Gated(nn.Module):
    """Has a stream, an operator of several results, and two outputs, one before the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.both = nn.Linear(8, 8)
        self.last = nn.Linear(4, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.tanh(self.first(x))
        gate, value = self.both(x).chunk(2, dim=-1)
        early = value.sum(-1)
        x = x + self.last(torch.sigmoid(gate) * value)
        return self.head(torch.relu(x)), early


def _traced() -> tuple[Trace, Tensor]:
    torch.manual_seed(0)
    inputs = torch.randn(5, 7, 6)
    return trace(Gated().eval(), ExampleInputs((inputs,))), inputs


def _found(memory: int | None) -> dict[str, tuple[Tensor, Tensor]]:
    traced, inputs = _traced()
    some = consumers(traced.program, analyse(traced).aliases)
    found = gradients_at(Script(traced.program), some, Call.of((inputs,)), torch.cos, memory)
    return {consumer.node: (gradient, value) for consumer, gradient, value in found}


@pytest.mark.parametrize("memory", [0, 3000, 20_000])
def test_stretches_give_the_gradients_of_the_whole(memory: int) -> None:
    whole, parted = _found(None), _found(memory)
    assert whole.keys() == parted.keys() and len(whole) == 4
    for name, pair in whole.items():
        for one, other in zip(pair, parted[name], strict=True):
            torch.testing.assert_close(one, other)


def test_the_gradients_are_those_of_autograd() -> None:
    traced, inputs = _traced()
    outputs = traced.module(inputs.requires_grad_())
    (wanted,) = torch.autograd.grad(outputs, inputs, [torch.cos(y) for y in outputs])
    weight = traced.module.get_submodule("first").weight
    through = [g @ weight for g, _ in _found(0).values() if g.shape[-1] == len(weight)]
    assert sum(torch.allclose(some, wanted, atol=1e-6) for some in through) == 1


def test_what_is_at_stake_does_not_depend_on_the_memory() -> None:
    traced, inputs = _traced()
    network, data = analyse(traced), [Call.of((inputs,))]
    small = Memory(2000, 2000, 2000, 2000)
    assert gradients_at_once(traced, small) == (2, 2000)
    assert gradients_at_once(traced, Memory.of(10**9))[1] is None
    sizes = (replace(small, moments=size) for size in range(2000, 10**6, 500))
    enough = next(size for size in sizes if gradients_at_once(traced, size) == (2, None))
    little, much = (stakes(traced, network, data, Workspace(memory=m)) for m in (small, enough))
    assert little == pytest.approx(much) and all(stake > 0 for stake in little.values())
    script = Script(traced.program)
    some = consumers(traced.program, network.aliases)
    parted, whole = (
        salience(script, some, data, at_once=None, memory=memory) for memory in (1000, None)
    )
    assert parted.keys() == whole.keys()
    for name, squares in whole.items():
        torch.testing.assert_close(squares, parted[name])


def test_a_divergence_is_the_same_where_the_original_is_run_again() -> None:
    traced, inputs = _traced()

    def given() -> list[Call]:
        return [Call.of((inputs,)), Call.of((inputs * 2,))]

    torch.manual_seed(1)
    other = trace(Gated().eval(), ExampleInputs((inputs,))).program
    kept, again = (Divergence(traced.program, given, memory=most) for most in (10**9, 0))
    assert kept.of(other) == again.of(other) > 0
    assert kept.of(traced.program) == again.of(traced.program) == 0


def test_large_networks_show_fewer_samples() -> None:
    assert [samples_of(there) for there in (10, 58, 400, 4000)] == [16, 16, 100, 128]
    few = [samples_of(there, in_stretches=True) for there in (10, 58, 400, 4000)]
    assert few == [8, 8, 50, 128]
