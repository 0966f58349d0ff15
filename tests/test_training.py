"""Training by the command line and from Python: recipes, own steps, several processes."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import math
import subprocess
import sys
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import BRIEFLY_TIMED, CLASSES, TinyNet, compress, inputs, write_model, write_samples
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import compressor
from compressor.cli import main
from compressor.errors import CompressorError, UsageError
from compressor.graph.analysis import analyse
from compressor.graph.trace import trace
from compressor.options import Options
from compressor.records import ExampleInputs
from compressor.recover import (
    Distance,
    GroupSparsity,
    Hooks,
    Objective,
    Recipe,
    Schedule,
    TrainingState,
    descent,
    fine_tune,
    reinitialise,
    settle_form,
)
from compressor.recover import recipe as recipes
from compressor.recover.capturing import Captured, why_not
from compressor.recover.recipe import cosine
from compressor.recover.tally import Tally
from compressor.run.journal import Asked, Journal, find_unfinished, start_journal
from compressor.slicing import as_module
from compressor.watch import Silent, Tick

SLOW_SGD = pytest.param("sgd", marks=pytest.mark.slow)


def labelled(samples: int = 64) -> TensorDataset:
    return TensorDataset(inputs(samples), torch.arange(samples) % CLASSES)


def plain() -> nn.Sequential:
    """Without batch statistics, which each process would have of its own."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, CLASSES))


def some(samples: int = 32, count: int = 3):
    return [((inputs(samples, n),), torch.arange(samples) % CLASSES) for n in range(count)]


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


# -- steps that are recorded ---------------------------------------------------------------------


def as_called(call):
    """In a CUDA graph's place: warms up as often, then simply calls."""
    for _ in range(3):
        call()
    return call


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Captured]:
    """Steps are recorded on the CPU too; what was recorded."""
    made: list[Captured] = []

    def capture(step, batch, kept):
        made.append(Captured(step, batch, kept, as_called))
        return made[-1]

    monkeypatch.setattr(descent, "why_not", lambda *_: "")
    monkeypatch.setattr(descent, "Captured", capture)
    return made


def normed() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, CLASSES))


def keep_states(kept: list[dict[str, Any]]) -> Hooks:
    return Hooks(after_epoch=lambda state: kept.append(state.to_dict()))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_recorded_steps_are_the_same_steps(recorded: list[Captured], optimizer: str) -> None:
    """Batches are copied in, warming up leaves nothing behind, and a shorter batch is no replay."""
    usual, other = normed(), normed()
    batches = [*some(), *some(20, 1)]
    recipe = Recipe(3, lr=0.05 if optimizer == "sgd" else 0.01, optimizer=optimizer)
    wanted = fine_tune(usual, batches, recipe, Objective(teacher=plain()))
    captured = dataclasses.replace(recipe, captured=True)
    found = fine_tune(other, batches, captured, Objective(teacher=plain()))
    assert len(recorded) == 1 and not found.not_captured
    assert_same_weights(usual, other)
    for one, same in zip(wanted.history, found.history, strict=True):
        assert same.loss == pytest.approx(one.loss, rel=1e-4)
        assert same.lr == one.lr


@pytest.mark.slow
def test_a_recorded_training_goes_on(recorded: list[Captured]) -> None:
    whole, goes_on, kept = normed(), normed(), []
    recipe = Recipe(4, lr=0.05, captured=True)
    fine_tune(whole, some(), recipe)
    fine_tune(
        goes_on, some(), recipe, hooks=Hooks(after_epoch=lambda state: kept.append(state.to_dict()))
    )
    fine_tune(goes_on, some(), recipe, state=TrainingState.from_dict(kept[1]))
    assert_same_weights(whole, goes_on)


class DrawsOnHost(nn.Sequential):
    def forward(self, x):
        return super().forward(x) * float(torch.rand(()) > -1)


def test_what_cannot_be_recorded_is_trained_as_usual_and_said(recorded: list[Captured]) -> None:
    usual, other = DrawsOnHost(*plain()), DrawsOnHost(*plain())
    fine_tune(usual, some(), Recipe(2, lr=0.05))
    state = fine_tune(other, some(), Recipe(2, lr=0.05, captured=True))
    assert not recorded
    assert "draws random numbers on the processor" in state.not_captured
    assert_same_weights(usual, other)


@pytest.mark.parametrize(
    ("recipe", "device", "words"),
    [
        (Recipe(1), "cpu", "on GPUs alone"),
        (Recipe(1, accumulate=2), "cuda", "several batches make one step"),
        (Recipe(1), "cuda", ""),
    ],
)
def test_why_steps_are_not_recorded(recipe: Recipe, device: str, words: str) -> None:
    assert words in why_not(recipe, Objective(), torch.device(device))
    pressed = Objective(penalty=lambda: torch.zeros(()))
    assert why_not(recipe, pressed, torch.device(device))


def test_a_loss_that_is_looked_at_later_is_named_with_its_step() -> None:
    tally = Tally(2, 0.1, waits=False)
    for loss in (1.0, 2.0, math.nan, 3.0):
        assert not tally.add(torch.tensor([loss, 1.0]), 4)
    with pytest.raises(CompressorError, match=r"the loss became nan") as caught:
        tally.read()
    assert caught.value.where == "epoch 2, step 3"
    assert tally.loss == 1.5


# -- recipes -----------------------------------------------------------------------------------


def test_the_learning_rate_rises_and_falls_to_zero() -> None:
    rates = [cosine(step, 100) for step in range(101)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert all(a >= b for a, b in itertools.pairwise(rates[4:]))
    assert rates[100] == pytest.approx(0.0)


def test_accumulated_batches_step_as_one_batch() -> None:
    whole, parts = plain(), plain()
    ((x,), y) = some(32, 1)[0]
    exact = Recipe(3, lr=0.05, precision="fp32")
    fine_tune(whole, [((x,), y)], exact)
    thirds = [((x[i:j],), y[i:j]) for i, j in ((0, 7), (7, 20), (20, 32))]
    fine_tune(parts, thirds, replace(exact, accumulate=3))
    assert_same_weights(whole, parts)


@pytest.mark.parametrize("optimizer", [SLOW_SGD, "adamw"])
def test_a_training_that_goes_on_ends_like_one_that_was_not_stopped(optimizer: str) -> None:
    torch.manual_seed(0)
    whole, stopped, goes_on = TinyNet(), TinyNet(), TinyNet()
    stopped.load_state_dict(whole.state_dict())
    recipe, kept = Recipe(4, lr=0.01, optimizer=optimizer, seed=3), []

    def stop(state: TrainingState) -> None:
        if state.epoch == 2:
            kept.append(state.to_dict())
            raise KeyboardInterrupt

    fine_tune(whole, some(), recipe)
    with pytest.raises(KeyboardInterrupt):
        fine_tune(stopped, some(), recipe, hooks=Hooks(after_epoch=stop))
    state = TrainingState.from_dict(kept[0])
    done = fine_tune(goes_on, some(), recipe, state=state)
    assert [result.epoch for result in done.history] == [1, 2, 3, 4]
    for (name, a), b in zip(whole.named_parameters(), goes_on.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_a_training_that_had_ended_is_not_lost() -> None:
    """A run may be killed after its last epoch, before anything is written."""
    net, again = plain(), plain()
    recipe, kept = Recipe(2, lr=0.05), []
    fine_tune(
        net, some(), recipe, hooks=Hooks(after_epoch=lambda state: kept.append(state.to_dict()))
    )
    fine_tune(again, some(), recipe, state=TrainingState.from_dict(kept[-1]))
    for (name, a), b in zip(net.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_the_best_epoch_is_kept_beside_the_last() -> None:
    found = iter([0.3, 0.9, 0.9, 0.5])
    net = plain()
    state = fine_tune(net, some(), Recipe(4, lr=0.05), hooks=Hooks(validate=lambda _: next(found)))
    assert state.best_epoch == 2
    assert not torch.equal(state.best["0.weight"], state.weights["0.weight"])
    assert torch.equal(net.state_dict()["0.weight"], state.weights["0.weight"])


def test_what_is_not_finite_leaves_the_last_whole_epoch() -> None:
    net, calls, states = plain(), [], []

    def loss(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return nn.functional.cross_entropy(outputs, target) * (math.nan if len(calls) == 5 else 1)

    def note(state: TrainingState) -> None:
        states.append({name: w.clone() for name, w in state.weights.items()})

    with pytest.raises(CompressorError, match="loss became nan"):
        fine_tune(net, some(), Recipe(3, lr=0.05), Objective(loss), hooks=Hooks(after_epoch=note))
    assert len(states) == 1
    assert all(torch.equal(w, states[0][name]) for name, w in net.state_dict().items())


def test_labels_and_the_original_weigh_as_is_said() -> None:
    net, teacher = plain(), plain()
    nn.init.normal_(teacher[5].weight)
    ((x,), y) = some(8, 1)[0]
    labels = nn.functional.cross_entropy(net(x), y).detach()
    distance = Distance()(net(x), teacher(x), y).detach()
    for weight in (0.0, 0.3, 1.0):
        value = Objective(teacher=teacher, distill=weight)(net, (x,), y).detach()
        assert float(value) == pytest.approx(float((1 - weight) * labels + weight * distance))
    assert Objective(teacher=teacher).weight == 0.5
    assert Objective(loss=lambda o, t: o.sum(), teacher=teacher).weight == 0.0


def test_bf16_trains_weights_that_stay_float32() -> None:
    net = plain()
    history = fine_tune(net, some(), Recipe(8, lr=0.05, precision="bf16")).history
    assert history[-1].loss < history[0].loss
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert net(inputs(2)).dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"distill": 1.5}, "--distill"),
        ({"label_smoothing": 1.0}, "--label-smoothing"),
        ({"accumulate": 0}, "--accumulate"),
        ({"weight_decay": -1.0}, "--weight-decay"),
        ({"optimizer": "adam"}, "--optimizer"),
        ({"lr": -0.1}, "--lr"),
        ({"sparsity": 0.0}, "--sparsity"),
        ({"policy": "reinitialise"}, "--policy"),
        ({"policy": "rewind-weights", "epochs": 1}, "--rewind-to"),
        ({"policy": "continue", "rewind_to": "a.pt", "epochs": 1}, "--rewind-to"),
    ],
)
def test_options_that_cannot_be_meant(options: dict, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Options(**options)


# -- the whole way -----------------------------------------------------------------------------


def test_the_report_has_every_epoch_and_the_best_one() -> None:
    torch.manual_seed(0)
    result = compress(TinyNet(16), inputs(), data=labelled(), epochs=3, batch_size=16, round_to=1)
    last = result.report["recovery"][-1]
    assert last["step"] == "3 epochs of fine-tuning"
    epochs = last["training"]["epochs"]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3]
    best = max(range(3), key=lambda i: (epochs[i]["metric"], -i))
    assert last["training"]["best_epoch"] == best + 1
    assert any("weight 0.5 on the original's outputs" in n for n in result.report["notes"])


@pytest.mark.slow
def test_a_step_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(
        "from torch.nn.functional import cross_entropy\n"
        "def step(model, inputs, target, teacher):\n"
        "    assert not teacher.training and model.training\n"
        "    return cross_entropy(model(*inputs), target)\n"
        "def wrong(model, inputs, target):\n"
        "    return 1 / 0\n"
    )
    options = {"data": labelled(), "epochs": 1, "batch_size": 16, "round_to": 1}
    result = compress(TinyNet(16), inputs(), train="own.py:step", **options)
    assert any("by the step of --train" in note for note in result.report["notes"])
    with pytest.raises(CompressorError, match="training step failed: ZeroDivisionError"):
        compress(TinyNet(16), inputs(), train="own.py:wrong", **options)


# -- what training begins with ------------------------------------------------------------------


def named(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def steps_of(result: compressor.Result) -> list[str]:
    return [moment["step"] for moment in result.report["recovery"]]


def assert_kept_of(result: compressor.Result, dense: dict[str, torch.Tensor]) -> None:
    """Every tensor is what the plan keeps of the dense network's."""
    for name, tensor in result.module.state_dict().items():
        expected = dense[name]
        for dim, kept in result.plan.tensors.get(name, {}).items():
            expected = expected.index_select(dim, torch.tensor(kept))
        torch.testing.assert_close(tensor, expected, msg=name)


def hardly(**options: object) -> compressor.Result:
    """So small a learning rate that what training begins with is what comes out."""
    options = {"round_to": 1, "batch_size": 16, "epochs": 1, "lr": 1e-30, **options}
    return compress(plain(), inputs(), data=labelled(), **options)  # type: ignore[arg-type]


@pytest.mark.slow
def test_weights_are_rewound_and_cut_as_the_network_is(tmp_path: Path) -> None:
    torch.manual_seed(7)
    earlier = {name: torch.randn_like(tensor) for name, tensor in plain().state_dict().items()}
    torch.save(earlier, tmp_path / "earlier.pt")
    rewound = hardly(policy="rewind-weights", rewind_to=str(tmp_path / "earlier.pt"))
    assert_kept_of(rewound, earlier)
    assert f"weights rewound to {tmp_path / 'earlier.pt'}" in steps_of(rewound)
    assert rewound.plan.tensors == hardly().plan.tensors


def test_weights_of_another_network_are_refused_before_any_work(tmp_path: Path) -> None:
    torch.save(TinyNet().state_dict(), tmp_path / "other.pt")
    with pytest.raises(CompressorError, match="do not fit the model"):
        hardly(policy="rewind-weights", rewind_to=str(tmp_path / "other.pt"))


@pytest.mark.slow
def test_training_from_scratch_knows_nothing_of_the_weights() -> None:
    def weights_after(scale: float) -> dict[str, torch.Tensor]:
        net = plain()
        for layer in (net[0], net[2], net[5]):
            nn.init.constant_(layer.bias, scale)
        result = compress(
            *(net, inputs()),
            data=labelled(),
            round_to=1,
            epochs=1,
            lr=1e-30,
            batch_size=16,
            policy="reinitialise",
            criterion="l2",
        )
        assert "re-initialised" in steps_of(result)
        return named(result.module)

    one, other = weights_after(1.0), weights_after(2.0)
    assert all(torch.equal(one[name], other[name]) for name in one)
    usual = nn.Conv2d(3, 16, 3).weight.detach().std()
    assert float(one["0.weight"].std()) == pytest.approx(float(usual), rel=0.5)


class Told(Silent):
    """Remembers which stages began."""

    def __init__(self) -> None:
        self.begun: list[str] = []

    def stage(self, name: str) -> AbstractContextManager[Tick]:
        self.begun.append(name)
        return super().stage(name)


def test_a_program_cannot_be_reinitialised() -> None:
    program = as_module(trace(plain(), ExampleInputs((inputs(2),))).program)
    told = Told()
    with pytest.raises(CompressorError, match="do not say how their weights begin"):
        compress(
            *(program, inputs()),
            data=labelled(),
            epochs=1,
            policy="reinitialise",
            watch=told,
        )
    assert "slice" not in told.begun


def test_a_parameter_that_no_layer_resets_is_drawn_like_itself() -> None:
    class Token(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Parameter(3 + 0.5 * torch.randn(1000))

    net = Token()
    fresh = reinitialise(net)
    assert not torch.equal(fresh.token, net.token)
    drawn = fresh.token.detach()
    assert float(drawn.mean()) == pytest.approx(3, abs=0.1)
    assert float(drawn.std()) == pytest.approx(0.5, abs=0.05)


@pytest.mark.slow
def test_a_rewound_learning_rate_is_that_of_a_first_training() -> None:
    rates = {
        policy: compress(
            *(plain(), inputs()),
            data=labelled(),
            round_to=1,
            epochs=1,
            batch_size=16,
            policy=policy,
        ).report["recovery"][-1]["training"]["epochs"][-1]["lr"]
        for policy in ("continue", "rewind-rate")
    }
    assert rates["rewind-rate"] == pytest.approx(10 * rates["continue"])


# -- sparsity learning --------------------------------------------------------------------------


def test_the_penalty_is_the_papers() -> None:
    """By hand, on the one group of two layers: producer's rows and bias, consumer's columns."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    network = analyse(trace(net, ExampleInputs((torch.randn(2, 3),))))
    penalty = GroupSparsity(network, net, network.groups, 0.1)
    penalty.begin_epoch()
    first, bias, second = net[0].weight, net[0].bias, net[2].weight
    squares = (first**2).sum(1) + bias**2 + (second**2).sum(0)
    weakness = (squares.max() - squares) / (squares.max() - squares.min())
    expected = 0.05 * (2 ** (4 * weakness.detach()) * squares).sum()
    torch.testing.assert_close(penalty(), expected)
    (gradient,) = torch.autograd.grad(penalty(), first)
    torch.testing.assert_close(gradient, 0.1 * (2 ** (4 * weakness))[:, None] * first)


def test_sparsity_learning_spreads_channels_apart_before_the_cut() -> None:
    def spread(module: nn.Module) -> float:
        norms = module[0].weight.detach().flatten(1).norm(dim=1)
        return float(norms.max() / norms.min())

    net, loss = plain(), Objective()
    network = analyse(trace(net, ExampleInputs((inputs(2),))))
    before = spread(net)
    penalty = GroupSparsity(network, net, network.groups, 0.05)
    fine_tune(net, some(), Recipe(20, lr=0.05), dataclasses.replace(loss, penalty=penalty))
    assert spread(net) > 2 * before


@pytest.mark.slow
def test_sparsity_learning_is_reported_and_learns_from_the_original() -> None:
    options = {"data": labelled(), "round_to": 1, "batch_size": 16, "criterion": "l2"}
    result = compress(TinyNet(16), inputs(), sparsity_epochs=2, epochs=1, **options)
    steps = steps_of(result)
    assert 0 < steps.index("2 epochs of sparsity learning") < steps.index("sliced")
    assert steps[-1] == "1 epoch of fine-tuning"
    assert result.report["after"]["macs"] <= 0.5 * result.report["before"]["macs"]


# -- one schedule through several steps ----------------------------------------------------------


@pytest.mark.parametrize("optimizer", [SLOW_SGD, "adamw"])
def test_moments_are_cut_with_their_weights(optimizer: str) -> None:
    """Two halves of one descent with a cut of nothing but zeros in between are one descent."""
    torch.manual_seed(0)
    dense, small = nn.Linear(6, 4), nn.Linear(4, 4)
    kept = (0, 2, 3, 5)
    with torch.no_grad():
        small.weight.copy_(dense.weight[:, list(kept)])
        small.bias.copy_(dense.bias)
    batches = [((torch.randn(8, 6),), torch.arange(8) % 4) for _ in range(3)]
    for (x,), _ in batches:
        x[:, [1, 4]] = 0
    fewer = [((x[:, list(kept)],), y) for (x,), y in batches]
    recipe = Recipe(2, lr=0.1, optimizer=optimizer, weight_decay=0.0, clip=1e9, horizon=4)
    whole, parts = Schedule(4), Schedule(4)
    state = fine_tune(dense, batches, recipe, state=whole.begin())
    parts.note(state)
    parts.cut({"weight": {1: kept}})
    with torch.no_grad():
        small.weight.copy_(dense.weight[:, list(kept)])
        small.bias.copy_(dense.bias)
    whole.note(state)
    fine_tune(dense, batches, recipe, state=whole.begin())
    fine_tune(small, fewer, recipe, state=parts.begin())
    torch.testing.assert_close(small.weight, dense.weight[:, list(kept)])
    torch.testing.assert_close(small.bias, dense.bias)


@pytest.mark.slow
def test_steps_share_one_fall_of_the_learning_rate() -> None:
    result = compress(
        *(TinyNet(16), inputs()),
        data=labelled(),
        round_to=1,
        batch_size=8,
        steps=3,
        step_epochs=2,
        epochs=2,
        schedule="linear",
    )
    trainings = [m["training"]["epochs"] for m in result.report["recovery"] if "training" in m]
    rates = [epoch["lr"] for epochs in trainings for epoch in epochs]
    assert len(rates) == 6
    assert all(a > b for a, b in itertools.pairwise(rates))
    assert rates[-1] < 0.1 * rates[0]


# -- how steps compute ---------------------------------------------------------------------------


def test_images_that_lie_channels_last_train_alike() -> None:
    usual, other = plain(), plain()
    recipe = Recipe(3, lr=0.05, precision="fp32")
    fine_tune(usual, some(), recipe)
    fine_tune(other, some(), replace(recipe, channels_last=True))
    for (name, a), b in zip(usual.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=name)
        assert b.is_contiguous()


class Viewed(nn.Sequential):
    """A network that refuses images which lie channels last: it looks at them as vectors."""

    def forward(self, x: Tensor) -> Tensor:
        x = self[0](x)
        return self[1](x.view(len(x), -1))


class Single(nn.Module):
    """An operator that knows float32 alone."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.float32, "no kernel for this type"
        return x * 2


@pytest.mark.parametrize("units", [False, True])
def test_steps_compute_in_the_fastest_form_that_the_network_takes(
    units: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipes, "multiplies_bf16", lambda device: units)

    def settle(net: nn.Module, objective: Objective, **asked: Any) -> tuple[str, str]:
        before = copy.deepcopy(net.state_dict())
        recipe, why = settle_form(net, some(), Recipe(1, **asked), objective, torch.device("cpu"))
        assert all(torch.equal(w, net.state_dict()[name]) for name, w in before.items())
        return recipe.form, why

    labels = Objective()
    assert settle(plain(), labels) == ("bfloat16, channels last" if units else "float32", "")
    assert settle(plain(), labels, channels_last=True)[0].endswith("channels last")
    assert settle(plain(), labels, precision="fp32") == ("float32", "")
    assert settle(plain(), labels, precision="bf16")[0] == "bfloat16, channels last"
    viewed = Viewed(nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8 * 64, 4))
    form, why = settle(viewed, labels)
    assert form == ("bfloat16" if units else "float32")
    assert why.startswith("a step in bfloat16, channels last failed (RuntimeError: view") == units
    single = nn.Sequential(*plain(), Single())
    form, why = settle(single, labels)
    assert form == "float32"
    assert ("no kernel for this type" in why) == units
    fine_tune(viewed, some(), Recipe(1))
    fine_tune(single, some(), Recipe(1))


@pytest.mark.slow
def test_compiled_steps_train_alike() -> None:
    usual, other = plain(), plain()
    recipe = Recipe(3, lr=0.05, precision="fp32")
    fine_tune(usual, some(), recipe)
    fine_tune(other, some(), replace(recipe, compiled=True))
    for (name, a), b in zip(usual.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=name)


# -- interrupted and gone on with --------------------------------------------------------------

EPOCHS = 4
OPTIONS = (
    *("net.pt", "--input", "1x3x8x8", "--data", "data.npz", "--test", "data.npz"),
    *("--epochs", str(EPOCHS), "--batch-size", "8", "--round-to", "1", "--format", "pt2"),
)


def test_a_run_that_is_stopped_goes_on_and_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where it is killed instead, tests of the self-check see the same."""
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "net.pt")
    write_samples(tmp_path / "data.npz", 200)
    assert main([*OPTIONS, "--out", "whole"]) == 0
    keep = Journal.keep

    def stop(self: Journal, name: str, record: dict) -> None:
        keep(self, name, record)
        if name == "training" and record["epoch"] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "keep", stop)
        assert main([*OPTIONS, "--out", "part"]) == 130
    assert not (tmp_path / "part").exists()
    capsys.readouterr()
    assert main(["resume", "part"]) == 0
    assert "training goes on after epoch 2" in capsys.readouterr().err
    assert not (tmp_path / "part.unfinished").exists()
    for name in ("plan.json", "model.safetensors"):
        one, other = ((tmp_path / folder / name).read_bytes() for folder in ("whole", "part"))
        assert one == other, name
    one, other = (
        json.loads((tmp_path / folder / "report.json").read_text())["recovery"]
        for folder in ("whole", "part")
    )
    assert [step["metrics"] for step in one] == [step["metrics"] for step in other]


def test_a_loss_that_is_no_number_ends_in_a_run_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "net.pt")
    write_samples(tmp_path / "data.npz")
    options = ["2" if word == str(EPOCHS) else word for word in OPTIONS]
    assert main([*options, "--out", "result", "--lr", "1e30", "--format", "pt2"]) == 1
    assert "became" in (said := capsys.readouterr().err)
    assert "compress resume" in said
    assert not (tmp_path / "result").exists()
    assert main(["resume", "result", "--lr", "0.01"]) == 0
    report = json.loads((tmp_path / "result" / "report.json").read_text())
    assert report["options"]["lr"] == 0.01 and list(report["formats"]) == ["pt2"]
    assert not (tmp_path / "result" / "model.onnx").exists()
    assert math.isfinite(report["recovery"][-1]["training"]["epochs"][-1]["loss"])
    assert (tmp_path / "result" / "training.svg").read_text().startswith("<?xml")
    assert "training.svg" in (tmp_path / "result" / "report.md").read_text()


@pytest.mark.slow
def test_trainings_before_the_last_cut_are_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that is stopped within its steps takes what it had trained from its records."""
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "net.pt", TinyNet(16))
    write_samples(tmp_path / "data.npz")
    options = ["net.pt", "--trust-pickle", "--input", "1x3x8x8", "--data", "data.npz"]
    options += ["--test", "data.npz", "--round-to", "1", "--batch-size", "8", "--steps", "2"]
    options += ["--step-epochs", "2", "--sparsity-epochs", "2", "--epochs", "2"]
    assert main([*options, "--out", "whole"]) == 0
    keep = Journal.keep

    def stop(self: Journal, name: str, record: dict) -> None:
        keep(self, name, record)
        if name == "step-1" and record["epoch"] == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "keep", stop)
        assert main([*options, "--out", "part"]) == 130
    capsys.readouterr()
    assert main(["resume", "part"]) == 0
    said = capsys.readouterr().err
    assert "training goes on after epoch 2" in said
    assert "training goes on after epoch 1" in said
    for name in ("plan.json", "model.safetensors"):
        one, other = ((tmp_path / folder / name).read_bytes() for folder in ("whole", "part"))
        assert one == other, name


def test_nothing_stays_of_a_run_that_fails_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "net.pt")
    write_samples(tmp_path / "data.npz", classes=CLASSES + 3)
    assert main([*OPTIONS, "--out", "results/of/it"]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.npz", "net.pt"]
    assert main(["resume", "result"]) == 2
    assert "no unfinished run" in capsys.readouterr().err


def test_what_was_kept_and_cannot_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "net.pt")
    write_samples(tmp_path / "data.npz")
    options = Options(data=("data.npz",), input=("1x3x8x8",), epochs=1)
    start_journal(tmp_path / "result", Asked("net.pt", options, str(tmp_path), False))
    (tmp_path / "result.unfinished" / "made.pt").write_bytes(b"PK broken")
    assert main([*OPTIONS, "--out", "result"]) == 2
    assert "unfinished run of this folder is there" in capsys.readouterr().err
    assert main(["resume", "result"]) == 1
    assert "cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "result").exists()


@pytest.mark.parametrize(
    "options",
    [
        Options(ratio=0.3, data=("a.npz", "b.npz"), epochs=3, lr=0.02, train="own.py:step"),
        Options(max_macs="2G"),
        Options(max_drop=1.0, of="latency", validation=("v.npz",)),
        Options(layer_ratio=("a=0.5",)),
    ],
)
def test_an_unfinished_run_keeps_its_options(tmp_path: Path, options: Options) -> None:
    run = Asked("net.pt", options, str(tmp_path), True)
    start_journal(tmp_path / "result", run)
    assert find_unfinished(tmp_path / "result")[0] == run


@pytest.mark.slow
def test_two_processes_give_what_one_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chosen, repaired and trained: plans equal, weights equal to within rounding; the first
    process alone writes."""
    write_model(tmp_path / "net.pt", plain())
    write_samples(tmp_path / "data.npz")
    (tmp_path / "brief.py").write_text(BRIEFLY_TIMED)
    options = ["net.pt", "--input", "1x3x8x8", "--data", "data.npz", "--test", "data.npz"]
    options += ["--epochs", "2", "--batch-size", "8", "--round-to", "1", "--lr", "0.05"]
    options += ["--format", "pt2"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launch += ["--nproc-per-node", "2"]
    monkeypatch.chdir(tmp_path)
    assert main([*options, "--out", "one"]) == 0
    words = [*launch, "brief.py", *options, "--out", "two"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    plans = [(tmp_path / name / "plan.json").read_text() for name in ("one", "two")]
    assert plans[0] == plans[1]
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-4, msg=name)
    reports = [json.loads((tmp_path / n / "report.json").read_text()) for n in ("one", "two")]
    assert [r["processes"] for r in reports] == [1, 2]
    losses = [r["recovery"][-1]["training"]["epochs"][-1]["loss"] for r in reports]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
