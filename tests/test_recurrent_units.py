"""Units of recurrent layers: each cell loses its own, and what its gates sum up is re-fitted."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from zoo_member import net

from compressor.choose import Bounds, Ranking, select
from compressor.choose.budget import Budget, Share
from compressor.errors import CompressorError
from compressor.graph.analysis import analyse
from compressor.graph.trace import trace
from compressor.least_squares import (
    Memory,
    RowCount,
    Script,
    Workspace,
    reconstruction_scores,
    refit,
)
from compressor.least_squares.consumers import consumers
from compressor.records import ExampleInputs, Trace
from compressor.slicing import apply_plan, carry_weights, slice_network

KINDS: dict[str, tuple[type[nn.RNNBase], dict[str, Any]]] = {
    "lstm": (nn.LSTM, {"batch_first": True}),
    "lstm both ways": (nn.LSTM, {"bidirectional": True}),
    "lstm projected": (nn.LSTM, {"proj_size": 3, "bidirectional": True, "batch_first": True}),
    "gru": (nn.GRU, {}),
    "gru both ways": (nn.GRU, {"bidirectional": True, "batch_first": True, "bias": False}),
    "rnn": (nn.RNN, {"nonlinearity": "relu"}),
}


def encoder(kind: str, hidden: int = 12) -> nn.Module:
    """Two layers, of which the last one's outputs are read."""
    make, options = KINDS[kind]
    width = options.get("proj_size", hidden) * (2 if options.get("bidirectional") else 1)
    torch.manual_seed(0)
    return net(
        lambda m, x: m.head(m.cells(x)[0]),
        cells=make(5, hidden, num_layers=2, **options),
        head=nn.Linear(width, 4),
    ).eval()


def traced(model: nn.Module) -> Trace:
    return trace(model, ExampleInputs((torch.randn(2, 6, 5),)))


def sequences(count: int = 4) -> list[tuple[Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(8, 6, 5, generator=generator),) for _ in range(count)]


def workspace() -> Workspace:
    return Workspace(memory=Memory.of(10**8, RowCount(usual=256)))


# -- which units go --------------------------------------------------------------------------------


def test_dead_units_of_each_layer_go_wherever_they_are() -> None:
    torch.manual_seed(0)
    model = net(
        lambda m, x: m.head(m.cells(x)[0]),
        cells=nn.LSTM(5, 12, num_layers=3, batch_first=True),
        head=nn.Linear(12, 4),
    ).eval()
    reads = [model.cells.weight_ih_l1, model.cells.weight_ih_l2, model.head.weight]
    dead = {0: (1, 4, 7), 1: (0, 2, 11), 2: (3, 4, 9)}
    with torch.no_grad():
        for layer, units in dead.items():
            rows = [gate * 12 + unit for gate in range(4) for unit in units]
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(model.cells, f"{name}_l{layer}")[rows] = 0
            for reader in (reads[layer], getattr(model.cells, f"weight_hh_l{layer}")):
                reader[:, units] = 0
    found = traced(model)
    network = analyse(found)
    scores = reconstruction_scores(found, network, sequences, workspace())
    keep = {name: tuple(s.argsort()[3:].tolist()) for name, s in scores.items() if "cells" in name}
    for layer, units in dead.items():
        assert set(range(12)) - set(keep[f"cells.weight_ih_l{layer}:0"]) == set(units)
    small = slice_network(found, network, keep)
    assert small.plan.form == "class"
    assert small.module.cells.hidden_size == 9
    (x,) = sequences(1)[0]
    torch.testing.assert_close(small.module(x), model(x))
    again = apply_plan(small.plan, copy.deepcopy(model))
    torch.testing.assert_close(again(x), small.module(x))


def test_layers_lose_equal_numbers_of_units() -> None:
    found = traced(encoder("lstm"))
    network = analyse(found)
    (level,) = network.level
    scores = reconstruction_scores(found, network, sequences, workspace())
    keep = select(network, Ranking(scores), Budget(Share(0.5), "macs"), Bounds()).keep
    assert len({len(keep[name]) for name in level}) == 1
    assert len({keep[name] for name in level}) == 2
    with pytest.raises(CompressorError, match="of one size"):
        slice_network(found, network, keep | {level[0]: (0, 1)})


def test_states_that_one_tensor_holds_keep_their_layers_together_and_that_is_said() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y, (h, _) = m.cells(x)
        return m.both(torch.cat([y[:, -1], h[1]], 1)) + m.head(h[2])

    parts = {"cells": nn.LSTM(5, 8, num_layers=3, batch_first=True), "head": nn.Linear(8, 4)}
    network = analyse(traced(net(forward, both=nn.Linear(16, 4), **parts).eval()))
    assert len(network.groups) == 2
    (remark,) = network.remarks
    assert "2 of 3 layers" in remark

    def started(m: Any, x: Tensor) -> Tensor:
        first = m.start(x[:, 0]).expand(3, -1, -1)
        return m.head(m.cells(x, (first, first))[0][:, -1])

    network = analyse(traced(net(started, start=nn.Linear(5, 8), **parts).eval()))
    assert len(network.groups) == 1
    assert "all 3 layers" in network.remarks[0]
    assert not analyse(traced(encoder("gru"))).remarks


# -- written out -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_that_is_written_out_computes_the_same(kind: str) -> None:
    model = encoder(kind).double()
    x = torch.randn(3, 7, 5, dtype=torch.float64)
    found = trace(model, ExampleInputs((x,)))
    script = Script(found.program)
    expected = model(x)
    torch.testing.assert_close(script.start((x,)).outputs()[0], expected)
    names = {name for consumer in consumers(found.program, {}) for name in consumer.tensors}
    assert names == {name for name, weight in model.named_parameters() if weight.dim() == 2}


# -- repair ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lstm", "lstm projected", "gru both ways", "rnn"])
def test_a_re_fit_is_for_the_better(kind: str) -> None:
    model = encoder(kind)
    found = traced(model)
    network = analyse(found)
    keep = {g.name: tuple(range(g.size // 4, g.size)) for g in network.groups}
    small = slice_network(found, network, keep)
    apart = sequences(6)[4:]

    def error() -> float:
        carry_weights(small.program, small.module)
        with torch.no_grad():
            return sum(float((small.module(*x) - model(*x)).square().mean()) for x in apart)

    before = error()
    masks = network.masks(keep)
    done = refit(found.program, small.program, network, masks, sequences, workspace())
    assert all(each.after < each.before for each in done)
    assert any("cells" in name for each in done for name in each.consumers)
    assert error() < 0.9 * before
    assert all(t.isfinite().all() for t in pytree.tree_leaves(small.program.state_dict))
