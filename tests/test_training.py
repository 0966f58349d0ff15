"""Training by the command line and from Python: recipes, own steps, several processes."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import CLASSES, TinyNet, inputs, write_model, write_samples
from torch import nn
from torch.utils.data import TensorDataset

import compressor
from compressor import delivery
from compressor.cli import main
from compressor.errors import CompressorError, UsageError
from compressor.journal import Run, started, unfinished
from compressor.options import Options
from compressor.recover import Objective, Recipe, TrainingState, distillation, fine_tune
from compressor.recover.recipe import cosine


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "LATENCY_SECONDS", 0.05)


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


# -- recipes -----------------------------------------------------------------------------------


def test_the_learning_rate_rises_and_falls_to_zero() -> None:
    rates = [cosine(step, 100) for step in range(101)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert all(a >= b for a, b in itertools.pairwise(rates[4:]))
    assert rates[100] == pytest.approx(0.0)


def test_accumulated_batches_step_as_one_batch() -> None:
    whole, parts = plain(), plain()
    ((x,), y) = some(32, 1)[0]
    fine_tune(whole, [((x,), y)], Recipe(3, lr=0.05))
    thirds = [((x[i:j],), y[i:j]) for i, j in ((0, 7), (7, 20), (20, 32))]
    fine_tune(parts, thirds, Recipe(3, lr=0.05, accumulate=3))
    assert_same_weights(whole, parts)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
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
        fine_tune(stopped, some(), recipe, after_epoch=stop)
    state = TrainingState.from_dict(kept[0])
    done = fine_tune(goes_on, some(), recipe, state=state)
    assert [result.epoch for result in done.history] == [1, 2, 3, 4]
    for (name, a), b in zip(whole.named_parameters(), goes_on.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_a_training_that_had_ended_is_not_lost() -> None:
    """A run may be killed after its last epoch, before anything is written."""
    net, again = plain(), plain()
    recipe, kept = Recipe(2, lr=0.05), []
    fine_tune(net, some(), recipe, after_epoch=lambda state: kept.append(state.to_dict()))
    fine_tune(again, some(), recipe, state=TrainingState.from_dict(kept[-1]))
    for (name, a), b in zip(net.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_the_best_epoch_is_kept_beside_the_last() -> None:
    found = iter([0.3, 0.9, 0.9, 0.5])
    net = plain()
    state = fine_tune(net, some(), Recipe(4, lr=0.05), validate=lambda _: next(found))
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
        fine_tune(net, some(), Recipe(3, lr=0.05), Objective(loss), after_epoch=note)
    assert len(states) == 1
    assert all(torch.equal(w, states[0][name]) for name, w in net.state_dict().items())


def test_labels_and_the_original_weigh_as_is_said() -> None:
    net, teacher = plain(), plain()
    nn.init.normal_(teacher[5].weight)
    ((x,), y) = some(8, 1)[0]
    labels = nn.functional.cross_entropy(net(x), y).detach()
    distance = distillation(net(x), teacher(x)).detach()
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
    ],
)
def test_options_that_cannot_be_meant(options: dict, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Options(**options)


# -- the whole way -----------------------------------------------------------------------------


def test_the_report_has_every_epoch_and_the_best_one() -> None:
    torch.manual_seed(0)
    result = compressor.compress(
        TinyNet(16), inputs(), data=labelled(), epochs=3, batch_size=16, round_to=1
    )
    last = result.report["recovery"][-1]
    assert last["step"] == "3 epochs of fine-tuning"
    epochs = last["training"]["epochs"]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3]
    best = max(range(3), key=lambda i: (epochs[i]["metric"], -i))
    assert last["training"]["best_epoch"] == best + 1
    assert any("weight 0.5 on the original's outputs" in n for n in result.report["notes"])


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
    result = compressor.compress(TinyNet(16), inputs(), train="own.py:step", **options)
    assert any("by the step of --train" in note for note in result.report["notes"])
    with pytest.raises(CompressorError, match="training step failed: ZeroDivisionError"):
        compressor.compress(TinyNet(16), inputs(), train="own.py:wrong", **options)


# -- interrupted and gone on with --------------------------------------------------------------

OPTIONS = (
    *("net.pt", "--input", "1x3x8x8", "--data", "data.npz", "--test", "data.npz"),
    *("--epochs", "40", "--batch-size", "8", "--round-to", "1"),
)


def run_in(folder: Path, *words: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "compressor", *words],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_run_that_is_killed_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    write_model(tmp_path / "net.pt")
    write_samples(tmp_path / "data.npz", 200)
    whole = run_in(tmp_path, *OPTIONS, "--out", "whole")
    assert whole.wait() == 0, whole.stderr.read()
    killed = run_in(tmp_path, *OPTIONS, "--out", "killed")
    home = tmp_path / "killed.unfinished"
    for record in ("made.pt", "training.pt"):
        while not (home / record).exists():
            assert killed.poll() is None, killed.stderr.read()
            time.sleep(0.005)
    killed.kill()
    killed.wait()
    assert not (tmp_path / "killed").exists()
    epoch = torch.load(home / "training.pt", weights_only=True)["epoch"]
    assert epoch < 40
    resumed = run_in(tmp_path, "resume", "killed")
    _, said = resumed.communicate()
    assert resumed.returncode == 0, said
    assert f"training goes on after epoch {epoch}" in said
    assert not home.exists()
    for name in ("plan.json", "model.safetensors"):
        one, other = ((tmp_path / folder / name).read_bytes() for folder in ("whole", "killed"))
        assert one == other, name
    one, other = (
        json.loads((tmp_path / folder / "report.json").read_text())["recovery"]
        for folder in ("whole", "killed")
    )
    assert [step["metrics"] for step in one] == [step["metrics"] for step in other]


def test_nothing_stays_of_a_run_that_fails_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "net.pt")
    write_samples(tmp_path / "data.npz", classes=CLASSES + 3)
    assert main([*OPTIONS, "--out", "result"]) == 1
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
    started(tmp_path / "result", Run("net.pt", options, str(tmp_path), False))
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
    run = Run("net.pt", options, str(tmp_path), True)
    started(tmp_path / "result", run)
    assert unfinished(tmp_path / "result")[0] == run


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    """Plans equal, trained weights equal to within rounding; the first process alone writes. (Not
    with repair: each process re-fits on all calibration data, which then count twice.)"""
    write_model(tmp_path / "net.pt", plain())
    write_samples(tmp_path / "data.npz")
    options = ["net.pt", "--input", "1x3x8x8", "--data", "data.npz", "--test", "data.npz"]
    options += ["--epochs", "2", "--batch-size", "8", "--round-to", "1", "--lr", "0.05"]
    options += ["--no-repair", "--criterion", "l2"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launch += ["--nproc-per-node", "2"]
    for words in (
        [sys.executable, "-m", "compressor", *options, "--out", "one"],
        [*launch, "-m", "compressor", *options, "--out", "two"],
    ):
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
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
