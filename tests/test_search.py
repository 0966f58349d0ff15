"""A search makes several smaller networks and takes the one whose outputs are nearest."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import CifarResNet
from test_blocks import Samples
from test_budgets import FileClock
from test_repairs_of_one_original import programs_started
from torch import Tensor, nn

import compressor
from compressor import compress
from compressor.choose import AtMost, Share
from compressor.choose.budget import candidates_of
from compressor.graph.analysis import analyse
from compressor.graph.blocks import find_blocks
from compressor.graph.trace import trace
from compressor.least_squares import stakes
from compressor.options import Options
from compressor.records import ExampleInputs
from compressor.run import candidates, time_candidates
from compressor.run.candidates import Candidates, Way
from compressor.run.compress import plan
from compressor.run.decide import decide
from compressor.run.found import Measured
from compressor.run.halfway import score_again
from compressor.run.opened import Run
from compressor.run.proposals import propose_factors
from compressor.run.subject import Subject
from compressor.run.time_candidates import aim_by_the_clock, time_the_best
from compressor.slicing.program import slice_program
from compressor.watch import Silent


def network() -> nn.Module:
    """A residual network with weights drawn anew."""
    torch.manual_seed(0)
    return CifarResNet(8).eval()


GIVEN: dict[str, Any] = {"ratio": 0.4, "batch_size": 16, "calibration": 48, "round_to": 1}


def search_by_command(**options: Any) -> compressor.Result:
    example = torch.randn(1, 3, 8, 8)
    given = {"data": Samples(), **GIVEN, "search": 4, **options}
    return compress(network(), example, **given)


@cache
def searched() -> compressor.Result:
    """One result for all tests that only look at it."""
    return search_by_command()


def test_a_search_without_blocks_weighs_layers_and_is_no_worse() -> None:
    result = searched()
    search = result.report["budget"]["search"]
    tried = search["candidates"]
    assert result.plan.removal is None and search["of"] == 0 and len(tried) == 4
    assert not tried[0]["factors"] and not tried[0]["scored_again"]
    assert any(each["factors"] for each in tried)
    changes = ("factors", "scored_again", "is_even")
    assert all(any(each[change] for change in changes) for each in tried[1:])
    assert search["divergence"] == min(each["divergence"] for each in tried)
    before, after = result.report["before"]["macs"], result.report["after"]["macs"]
    assert 1 - after / before == pytest.approx(0.4, abs=0.02)


def test_the_same_seed_finds_the_same_network() -> None:
    assert searched().plan.to_json() == search_by_command(format=()).plan.to_json()


def test_what_was_tried_is_in_the_reports(tmp_path: Path) -> None:
    searched().save(tmp_path / "result")
    search = searched().report["budget"]["search"]
    best, first = search["divergence"], search["candidates"][0]["divergence"]
    said = f"{best:.4g}, without the search {first:.4g}"
    text = (tmp_path / "result" / "report.md").read_text()
    assert said in text and "blocks taken out" not in text
    assert said.split(",")[0] in (tmp_path / "result" / "report.html").read_text()


def test_three_measures_of_errors_are_compared_and_nothing_else_unless_it_is_asked_for() -> None:
    search = search_by_command(search="auto", format=()).report["budget"]["search"]
    plain, *by_stakes, even = search["candidates"]
    assert not plain["factors"] and not plain["is_even"] and even["is_even"]
    assert len(by_stakes) < 2 and all(each["factors"] for each in by_stakes)
    assert search["divergence"] == min(each["divergence"] for each in search["candidates"])
    given = {**GIVEN, "criterion": "reconstruction"}  # as is resolved where there are data
    assert candidates_of(Options(**given)) >= len(search["candidates"])
    for others in ({"search": 0}, {"criterion": "l2"}, {"repair": False}, {"scope": "layer"}):
        assert candidates_of(Options(**{**given, **others})) == 0
    assert "search" not in search_by_command(search=0, format=()).report["budget"]


def test_large_networks_are_searched_through_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    macs = network_macs()
    monkeypatch.setattr(candidates, "WORK", candidates.PASSES * macs * 20)
    affordable = compress(network(), torch.randn(1, 3, 8, 8), data=Samples(), **GIVEN, format=())
    assert "search" in affordable.report["budget"]  # each is repaired on 20 samples
    monkeypatch.setattr(candidates, "WORK", candidates.PASSES * macs * 7)
    left = compress(network(), torch.randn(1, 3, 8, 8), data=Samples(), **GIVEN, format=())
    assert "search" not in left.report["budget"]
    assert any("--search 3 makes 3" in note for note in left.report["notes"])
    asked = search_by_command(search=3, format=())
    assert len(asked.report["budget"]["search"]["candidates"]) == 3


def test_what_stays_in_any_case_is_not_scored() -> None:
    """A stream that all layers read costs more to score than all that may go."""
    layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    model = nn.Sequential(nn.Linear(8, 16), encoder, nn.Linear(16, 3)).eval()
    subject = Subject(model, (torch.randn(1, 5, 8),))
    for prune, roles in (
        ((), {"channels", "heads"}),
        (("stream",), {"channels", "heads", "stream"}),
    ):
        run, _ = plan(subject, Options(ratio=0.2, prune=prune, criterion="l2"), Silent())
        by_name = {group.name: group.role for group in run.network.groups}
        assert "stream" in by_name.values()
        assert {by_name[name] for name in run.scores} == roles
    kept = Options(ratio=0.2, criterion="l2", protect=("1.layers.0.*",))
    run, _ = plan(subject, kept, Silent())
    assert run.scores and not any(name.startswith("1.layers.0") for name in run.scores)


def network_macs() -> int:
    example = ExampleInputs((torch.randn(1, 3, 8, 8),))
    return analyse(trace(network(), example)).cost.macs()


class Auxiliary(nn.Module):
    """A residual network with a head that is there for training alone, or never computed."""

    def __init__(self, *, is_used: bool) -> None:
        super().__init__()
        self.body, self.head, self.is_used = network(), nn.Linear(8, 10), is_used

    def forward(self, x: Tensor) -> Any:
        main = self.body(x)
        return (main, self.head(x[:, 0, 0])) if self.training and self.is_used else main


@pytest.mark.parametrize("is_used", [True, False])
def test_layers_for_training_alone_keep_blocks_and_those_that_nothing_uses_do_not(
    is_used: bool,
) -> None:
    given = {**GIVEN, "data": Samples(), "search": 3, "prune": ["block"], "format": ()}
    result = compress(Auxiliary(is_used=is_used).eval(), torch.randn(1, 3, 8, 8), **given)
    search = result.report["budget"]["search"]
    assert len(search["candidates"]) == 3 and (search["of"] == 0) == is_used
    noted = any("in training alone" in note for note in result.report["notes"])
    assert noted == is_used


def test_an_even_candidate_is_the_choice_by_layer() -> None:
    run, _ = plan(
        Subject(network(), torch.randn(1, 3, 8, 8), data=Samples()),
        Options(**GIVEN, format=()),
        Silent(),
    )
    made = Candidates(run, Share(0.4), [])
    even, by_layer = made.choose(run, Way(is_even=True)), decide(run, made.target, scope="layer")
    assert even.keep == by_layer.keep != made.choose(run, Way()).keep
    shares = [
        1 - len(even.keep[g.name]) / g.size for g in run.network.groups if g.name in even.keep
    ]
    assert max(shares) - min(shares) < 0.2


def test_stakes_are_what_the_outputs_lose_without_what_a_layer_says() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.ModuleList(nn.Linear(4, 6) for _ in range(2))
            self.outer = nn.ModuleList(nn.Linear(6, 3) for _ in range(2))
            self.outer[1].load_state_dict(self.outer[0].state_dict())
            self.inner[1].load_state_dict(self.inner[0].state_dict())

        def forward(self, x: Tensor) -> Tensor:
            first, second = (o(i(x).relu()) for i, o in zip(self.inner, self.outer, strict=True))
            return first + 0.1 * second

    torch.manual_seed(0)
    x = torch.randn(64, 4)
    traced = trace(Branches().eval(), ExampleInputs((x,)))
    network = analyse(traced)
    found = stakes(traced, network, [(x,)])
    first, second = (found[g.name] for g in network.groups if g.size == 6)
    assert first / second == pytest.approx(100, rel=0.05)
    assert first * second == pytest.approx(1)


def test_a_search_without_data_says_that_it_needs_some() -> None:
    result = compress(network(), torch.randn(1, 3, 8, 8), ratio=0.2, search=3, format=())
    assert "search" not in result.report["budget"]
    assert any("candidates are judged on --data" in note for note in result.report["notes"])


@cache
def opened() -> Run:
    subject = Subject(network(), torch.randn(1, 3, 8, 8), data=Samples())
    return plan(subject, Options(**GIVEN, format=()), Silent())[0]


def test_channels_that_went_by_half_of_the_way_go_first_again() -> None:
    run = opened()
    half = decide(run, Share(0.2)).keep
    program = slice_program(run.trace, run.network, run.network.masks(half))
    scores = score_again(run, half, program)
    for name, some in scores.items():
        gone = np.setdiff1d(np.arange(len(some)), half.get(name, range(len(some))))
        assert (some[gone] < min(each.max() for each in scores.values())).all()
        kept = np.setdiff1d(np.arange(len(some)), gone)
        assert not len(gone) or some[gone].max() < some[kept].min()
    chosen = decide(replace(run, scores=scores), Share(0.4)).keep
    assert all(set(chosen.get(name, range(999))) <= set(kept) for name, kept in half.items())


def test_a_network_that_is_known_is_not_made_again() -> None:
    made = Candidates(opened(), Share(0.4), [])
    made.look_at(Way())
    name = next(iter(opened().scores))
    assert not made.look_at_new(Way(factors=((name, 1 + 1e-12),)))
    assert made.look_at_new(Way(factors=((name, 1e-6),)))
    assert len(made.seen) == 2


def test_candidates_all_cost_what_was_asked_for() -> None:
    run = opened()
    made = Candidates(run, Share(0.4), [])
    made.look_at(Way())
    ways = [way for _, way in zip(range(4), propose_factors(made, 0), strict=False)]
    assert len(set(ways)) == 4 and all(way.factors for way in ways)
    for way in ways:
        kept = {name: len(some) for name, some in made.choose(made.run_of(way), way).keep.items()}
        assert isinstance(made.target, AtMost)
        left = run.total("macs", kept)
        assert 0.85 <= left / made.target.most <= 1.02


def test_a_limit_is_kept_by_all_candidates() -> None:
    most = 0.6 * opened().total("macs")
    result = search_by_command(ratio=None, max_macs=f"{most:.0f}", format=())
    assert 0.9 * most < result.report["after"]["macs"] <= most


def test_the_original_is_run_once_for_the_repairs_of_all_candidates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = Options(**GIVEN)
    run, _ = plan(Subject(network(), torch.randn(1, 3, 8, 8), data=Samples()), options, Silent())
    made = Candidates(run, Share(0.4), find_blocks(run.trace.program))
    made.look_at(Way())
    started = programs_started(monkeypatch)
    made.look_at(Way(aim=0.9))
    made.look_at(Way(blocks=frozenset({made.blocks[0].name})))
    assert len(made._made) == 3, "three networks were repaired"
    assert started and all(program is not run.trace.program for program in started)


# -- by the clock ----------------------------------------------------------------------------------


def test_candidates_are_made_for_the_measured_time(monkeypatch: pytest.MonkeyPatch) -> None:
    FileClock(monkeypatch, fixed=12.0)
    options = Options(**{**GIVEN, "of": "latency", "ratio": 0.2})
    run, _ = plan(Subject(network(), torch.randn(1, 3, 8, 8), data=Samples()), options, Silent())
    made = Candidates(run, Share(0.2), [])
    widths = [len(k) for k in made.choose(run, Way()).keep.values()]
    aim_by_the_clock(made, lambda *_: None)
    assert made.aim < 0.97, "the clock is steeper than predicted"
    narrower = [len(k) for k in made.choose(run, Way()).keep.values()]
    assert sum(narrower) < sum(widths)


@pytest.mark.parametrize(("off", "is_made_anew"), [(1.005, False), (1.2, True)])
def test_a_candidate_that_takes_what_it_may_is_not_made_anew(
    off: float, is_made_anew: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = Options(**GIVEN)
    run, _ = plan(Subject(network(), torch.randn(1, 3, 8, 8), data=Samples()), options, Silent())
    made = Candidates(run, Share(0.4), [])
    made.aim = 0.9
    made.look_at(Way())
    measured = Measured(0.54 * off, 0.6, 1.0, 0.6, 0.0)
    monkeypatch.setattr(time_candidates, "_measure", lambda *_: measured)
    judged = len(made._made)
    time_the_best(made, lambda *_: None)
    assert (len(made._made) > judged) is is_made_anew
    way, best = made.best
    assert best.aim == way.aim == pytest.approx(0.9 * off if is_made_anew else 0.9)


@pytest.mark.slow
def test_the_best_are_timed_and_judged_again_at_their_measured_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = FileClock(monkeypatch, fixed=12.0)
    result = search_by_command(of="latency", ratio=0.2, search=4, format=())
    tried = result.report["budget"]["search"]["candidates"]
    timed = [each for each in tried if each["aim"] is not None]
    assert len(tried) - len(timed) == 4 and 1 <= len(timed) <= 3
    assert all(each["aim"] != 1 for each in timed), "the clock is steeper than predicted"
    best = min(timed, key=lambda each: each["divergence"])
    assert result.report["budget"]["search"]["divergence"] == best["divergence"]
    assert result.report["budget"]["measured"]["share"] <= 0.8
    assert clock.asked >= len(timed)
