"""Pruning in steps: schedules, cuts composed into one, and the whole way through."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import CASES
from tiny import CLASSES, HardCoded, TinyNet, compress, inputs
from torch import nn
from torch.utils.data import TensorDataset
from twin import EXACT, Keep, analysed, assert_same

import compressor
from compressor.choose.budget import SCHEDULES
from compressor.errors import CompressorError, UsageError
from compressor.graph.analysis import analyse
from compressor.graph.network import Network
from compressor.graph.trace import trace
from compressor.options import Options
from compressor.records import ExampleInputs
from compressor.slicing import as_module, slice_network
from compressor.slicing.composing import compose, keep_of


def labelled(samples: int = 64) -> TensorDataset:
    return TensorDataset(inputs(samples), torch.arange(samples) % CLASSES)


# -- schedules ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("left", [0.1, 0.5, 0.9])
def test_schedules_fall_from_all_to_what_is_to_be_left(name: str, left: float) -> None:
    shares = [SCHEDULES[name](t, left) for t in np.linspace(0, 1, 11)]
    assert shares[-1] == pytest.approx(left)
    assert all(one >= other - 1e-12 for one, other in itertools.pairwise(shares))
    assert shares[0] == pytest.approx(left if name == "one-shot" else 1.0)


def test_schedules_differ_as_their_names_say() -> None:
    half = {name: schedule(0.5, 0.25) for name, schedule in SCHEDULES.items()}
    assert half["one-shot"] == 0.25
    assert half["linear"] == half["cosine"] == pytest.approx(0.625)
    assert half["geometric"] == 0.5
    assert half["cubic"] == pytest.approx(0.25 + 0.75 / 8)
    first = {name: 1 - schedule(0.1, 0.25) for name, schedule in SCHEDULES.items()}
    assert first["cosine"] < first["linear"] < first["geometric"] < first["cubic"]


# -- cuts composed -----------------------------------------------------------------------------


def thinned(network: Network, seed: int) -> Keep:
    """About two thirds of every group that has three channels or more."""
    rng = np.random.default_rng(seed)
    keep: Keep = {}
    for group in network.groups:
        if group.role in EXACT and group.size > 2:
            count = int(rng.integers(2, group.size))
            keep[group.name] = tuple(sorted(int(i) for i in rng.permutation(group.size)[:count]))
    return keep


@pytest.mark.parametrize("name", CASES)
def test_two_cuts_are_one(name: str) -> None:
    """In float64, network by network: cut, traced anew and cut again, it computes what one cut of
    the original by the composed choice computes."""
    of = analysed(name)
    first = slice_network(of.trace, of.network, thinned(of.network, 1))
    again = trace(first.module, ExampleInputs(of.case.inputs(2)))
    network = analyse(again)
    second = slice_network(again, network, thinned(network, 2))
    indices = compose(first.plan.tensors, second.plan.tensors)
    once = slice_network(of.trace, of.network, keep_of(of.network, indices))
    assert once.plan.tensors == indices
    assert_same(as_module(second.program), as_module(once.program), of.case)


def test_indices_count_in_what_was_left() -> None:
    first = {"a": {0: (1, 3, 5, 7)}, "b": {1: (0, 2)}}
    then = {"a": {0: (0, 3), 1: (4,)}, "c": {0: (2,)}}
    assert compose(first, then) == {
        "a": {0: (1, 7), 1: (4,)},
        "b": {1: (0, 2)},
        "c": {0: (2,)},
    }


def test_indices_that_no_choice_keeps_are_refused() -> None:
    network = analysed("residual").network
    member = network.groups[0].producer
    with pytest.raises(CompressorError, match="no single cut"):
        keep_of(network, {member.tensor: {member.dim: (0,)}})


# -- the whole way -----------------------------------------------------------------------------


def compressed(model: nn.Module, **options: Any) -> compressor.Result:
    return compress(model, inputs(), 0.6, round_to=1, **options)


@pytest.mark.parametrize("of", ["macs", "params"])
def test_steps_meet_the_budget_together(of: str) -> None:
    torch.manual_seed(0)
    found = compressed(TinyNet(32), steps=3, schedule="linear", of=of, data=labelled())
    report = found.report
    assert report["after"][of] <= 0.4 * report["before"][of]
    assert report["after"][of] == report["budget"]["predicted"][of]
    steps = [moment["step"] for moment in report["recovery"]]
    assert [step for step in steps if step.endswith("sliced")] == [
        f"step {n} of 3: sliced" for n in (1, 2, 3)
    ]
    assert sum("re-fitted" in step for step in steps) == 3
    assert report["after"]["metrics"] == report["recovery"][-1]["metrics"]


def test_the_plan_of_several_steps_replays_as_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    found = compressed(TinyNet(16), steps=2, data=labelled(), epochs=1, step_epochs=1)
    found.save(tmp_path / "out")
    again = compressor.load(tmp_path / "out", TinyNet, width=16)
    x = inputs(3, seed=1)
    with torch.no_grad():
        torch.testing.assert_close(found.module(x), again(x))
    assert [moment["step"] for moment in found.report["recovery"]].count(
        "step 1 of 2: 1 epoch of fine-tuning"
    ) == 1
    assert found.report["recovery"][-1]["step"] == "1 epoch of fine-tuning"


def test_a_program_is_pruned_in_steps_as_well() -> None:
    torch.manual_seed(0)
    found = compressed(HardCoded(), steps=2, data=labelled())
    assert found.plan.form == "program"
    assert found.report["after"]["macs"] <= 0.4 * found.report["before"]["macs"]


def test_in_many_steps_a_tenth_of_the_original_stays() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 40, 1), nn.ReLU(), nn.Conv2d(40, 40, 1), nn.Conv2d(40, 4, 1))
    found = compress(model, inputs(), 0.97, round_to=1, steps=4, best_effort=True)
    assert all(len(group["keep"]) >= 4 for group in found.plan.groups.values())


def test_one_shot_is_one_step() -> None:
    torch.manual_seed(0)
    model = TinyNet(16)
    at_once = compressed(model)
    in_steps = compressed(model, steps=3, schedule="one-shot")
    assert in_steps.plan == at_once.plan


def test_what_is_said_of_a_layer_is_not_for_steps() -> None:
    with pytest.raises(UsageError, match="--layer-ratio is for the whole network"):
        Options(ratio=0.5, steps=2, layer_ratio=("a=0.1",))
    with pytest.raises(UsageError, match="between the steps of one"):
        Options(ratio=0.5, step_epochs=1)
