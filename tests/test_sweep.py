"""`compress sweep`: the grid, trials that are kept, the same results however they are run, the
numbers and pages made of them."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from onnx_files import perceptron, save
from tiny import CLASSES, inputs, names_in, sequential, write_model, write_samples
from torch import nn
from torch.utils.data import TensorDataset

from compressor.cli import main
from compressor.errors import CompressorError, UsageError
from compressor.graph.analysis import analyse
from compressor.graph.trace import trace
from compressor.loading import load_model
from compressor.options import PAPER_RATIOS, Options, SweepOptions, recovery_of, schedule_of
from compressor.records import ExampleInputs
from compressor.recover import Recipe, fine_tune, top1, top5
from compressor.run.opening import open_network
from compressor.run.subject import Subject
from compressor.studies.sweep import latencies, pool, sweep, sweeping
from compressor.studies.sweep.carrying_out import Outcome, Task
from compressor.studies.sweep.checklist import ITEMS, Found, checklist
from compressor.studies.sweep.curves_of_trials import TIMES, curves_of
from compressor.studies.sweep.identity import key_of, surroundings_of
from compressor.studies.sweep.pictures import Picture, draw, for_a_page, styles_of
from compressor.studies.sweep.store import Store, check_folder
from compressor.studies.sweep.trials import (
    CONTROLS,
    DENSE,
    UNSTRUCTURED,
    Trial,
    complete,
    dense_of,
    trials_of,
)
from compressor.studies.sweep.unstructured import (
    _keep_zeros,
    uses_of_weights,
    weights_of_layers,
    zero_share,
)
from compressor.watch import Silent, Stopwatch

SMALL = ("--ratios", "0.5", "--criteria", "l2", "--seeds", "1", "--recoveries", "none")
"""Five trials: the dense original, l2, its two controls, the reference."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latencies, "SECONDS", 0.02)
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a network and data."""
    folder = tmp_path_factory.mktemp("sweep")
    write_model(folder / "net.pt")
    write_samples(folder / "train.npz", 32)
    write_samples(folder / "test.npz", 32)
    yield folder


def command(home: Path, out: Path, *more: str) -> list[str]:
    data = ["--data", str(home / "train.npz"), "--test", str(home / "test.npz")]
    return ["sweep", str(home / "net.pt"), *data, "--out", str(out), *more]


def rows_in(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def timeless(folder: Path) -> list[dict[str, str]]:
    """What must not depend on when, where and how trials were run."""
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows_in(folder)]


@pytest.fixture(scope="module")
def done(home: Path) -> Path:
    """The small sweep, done once in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latencies, "SECONDS", 0.02)
        assert main(command(home, home / "done", *SMALL)) == 0
    return home / "done"


# -- the grid -----------------------------------------------------------------------------------


def trials(**options: Any) -> list[Trial]:
    return trials_of(complete(SweepOptions(test=("x",), **options), has_data=True))


def test_the_defaults_are_those_of_the_paper_and_the_controls_are_always_there() -> None:
    found = trials()
    assert [round(1 / (1 - ratio)) for ratio in PAPER_RATIOS] == [2, 4, 8, 16, 32]
    assert found[0].kind == DENSE
    ways = {(t.options.criterion, t.options.scope) for t in found if t.kind == "structured"}
    assert ways == {("reconstruction", "global"), ("l2", "global"), *CONTROLS}
    assert len(found) == 1 + 5 * 3 * 5
    assert {t.options.of for t in found} == {"params"}
    assert sum(t.kind == UNSTRUCTURED for t in found) == 15
    assert not any(t.kind == UNSTRUCTURED for t in trials(reference=False))


def test_what_is_asked_for_twice_is_one_trial() -> None:
    found = trials(ratios=(0.5,), criteria=("random", "l2", "l2"), scopes=("global",), seeds=1)
    assert len(found) == 1 + 3 + 1


def test_schedules_and_recoveries_are_spelled_in_one_way() -> None:
    assert schedule_of("one-shot") == {"steps": 1}
    assert schedule_of("cubic=3") == {"schedule": "cubic", "steps": 3}
    assert recovery_of("none") == {"repair": False, "epochs": 0}
    assert recovery_of("rewind-rate", 4) == {"policy": "rewind-rate", "epochs": 4}
    found = trials(
        ratios=(0.5,), schedules=("one-shot", "cubic=3"), recoveries=("repair", "epochs=2"), seeds=1
    )
    settings = {(t.schedule, t.recovery) for t in found if t.kind != DENSE}
    assert len(settings) == 4
    assert {t.options.epochs for t in found if t.recovery == "epochs=2"} == {2}
    assert {t.options.epochs for t in found if t.recovery == "repair"} == {0}


def test_a_grid_file_says_what_flags_say(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text("ratios: [0.5, 0.75]\ncriteria: l2\nrecoveries: [none, epochs=2]\nseeds: 2\n")
    by_file = trials(grid=str(path))
    by_flags = trials(
        ratios=(0.5, 0.75), criteria=("l2",), recoveries=("none", "epochs=2"), seeds=2
    )
    assert by_file == by_flags


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ratio: [0.5]", "nearest: ratios"),
        ("ratios: [0.5, 1.5]", "ratios: the ratios are shares"),
        ("criteria: [l3]", "criteria: 'l3' is not one of"),
        ("seeds: many", "seeds: 'many' is not of the kind"),
        ("recoveries: [epochs]", "lacks a number of epochs"),
        ("- 0.5", "a grid is a mapping"),
        ("ratios: [0.5", "this is no YAML"),
        ("scopes: [layer]\nseeds: 2", "--scopes is given, too"),
        (None, "cannot be read"),
    ],
)
def test_a_grid_file_that_cannot_be_meant_is_refused(
    tmp_path: Path, text: str | None, says: str
) -> None:
    path = tmp_path / "grid.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError) as refused:
        complete(SweepOptions(grid=str(path), scopes=("global",)), has_data=True)
    assert says in str(refused.value)
    assert str(path) in refused.value.where
    assert refused.value.next_step


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--ratios", "0.5,1"], "between 0 and 1"),
        (["--ratio", "0.5"], "--ratio"),
        (["--criteria", "l3"], "is not one of"),
        (["--scopes", "globally"], "for example: --scopes global"),
        (["--schedules", "cubic"], "e.g. cubic=3"),
        (["--schedules", "one-shot=3"], "one-shot has one step"),
        (["--recoveries", "repair=3"], "repair trains nothing"),
        (["--recoveries", "epochs=few"], "whole number"),
        (["--recoveries", "rewind-weights=1"], "rewind-to"),
        (["--seeds", "0"], "below the least"),
        (["--jobs", "2", "--of", "latency"], "which others running at once disturb"),
        (["--jobs", "2", "--round-to", "auto"], "which others running at once disturb"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_loaded(
    tmp_path: Path, more: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["sweep", "absent.pt", "--test", "x.npz", "--out", str(out), *more]) == 2
    shown = capsys.readouterr().err
    assert says in shown
    assert "Traceback" not in shown
    assert not out.exists()


def test_a_sweep_needs_test_data_and_says_so(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["sweep", str(home / "net.pt"), "--out", str(out)]) == 2
    assert "give --test DATA" in capsys.readouterr().err
    arguments = ["sweep", str(home / "net.pt"), "--test", str(home / "test.npz")]
    assert main([*arguments, "--criteria", "taylor", "--out", str(out)]) == 2
    assert "taylor: this needs training data" in capsys.readouterr().err
    assert not out.exists()


def test_a_folder_of_something_else_is_left_alone(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    assert main(command(home, tmp_path, *SMALL)) == 2
    assert "thesis.tex" in capsys.readouterr().err
    assert names_in(tmp_path) == ["thesis.tex"]


# -- what a trial's result follows from ---------------------------------------------------------


def keys_of(home: Path, **options: Any) -> set[str]:
    data = {"data": (str(home / "train.npz"),), "test": (str(home / "test.npz"),)}
    chosen = complete(
        SweepOptions(**{**data, "ratios": (0.5,), "seeds": 1, **options}), has_data=True
    )
    subject = Subject(options.pop("model", str(home / "net.pt")))
    opened = open_network(subject, dense_of(chosen).options, Stopwatch(Silent()))
    surroundings = surroundings_of(opened, chosen)
    return {key_of(trial, surroundings) for trial in trials_of(chosen)}


def test_the_key_follows_from_content_and_from_nothing_else(home: Path, tmp_path: Path) -> None:
    keys = keys_of(home)
    assert len(keys) == 1 + 4 + 1
    assert keys_of(home, threads=2) == keys, "how latency is measured makes no other network"
    assert keys_of(home, seeds=2) > keys
    assert len(keys_of(home, batch_size=32) & keys) == 0
    assert len(keys_of(home, weight_decay=0.1) & keys) == 0
    other = write_samples(tmp_path / "other.npz", 40)
    assert not keys_of(home, test=(str(other),)) & keys
    copied = tmp_path / "copied.npz"
    copied.write_bytes((home / "test.npz").read_bytes())
    assert keys_of(home, test=(str(copied),)) == keys, "the same data under another name"


# -- the reference ------------------------------------------------------------------------------


def test_the_smallest_weights_become_zero_wherever_they_are() -> None:
    module = sequential()
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    total = sum(p.numel() for p in before.values())
    layers = weights_of_layers(trace(module.eval(), ExampleInputs((inputs(2),))))
    masks = zero_share(module, layers, 0.6)
    assert set(masks) == {"0.weight", "3.weight", "7.weight"}
    zeros = sum(int((mask == 0).sum()) for mask in masks.values())
    assert zeros == round(0.6 * total)
    lost = torch.cat([before[n][m == 0].abs() for n, m in masks.items()])
    kept = torch.cat([before[n][m == 1].abs() for n, m in masks.items()])
    assert lost.max() <= kept.min()
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, before[name] * masks.get(name, 1))
    with pytest.raises(CompressorError, match="layers have"):
        zero_share(module, layers, 0.99)


def test_embeddings_and_tied_weights_stay() -> None:
    embedding, head = nn.Embedding(10, 8), nn.Linear(8, 10, bias=False)
    head.weight = embedding.weight
    module = nn.Sequential(embedding, nn.Linear(8, 8), head)
    assert weights_of_layers(trace(module, ExampleInputs((torch.arange(6).view(2, 3),)))) == {
        "1.weight"
    }


def test_weights_of_an_onnx_file_are_known_whatever_they_are_called(tmp_path: Path) -> None:
    loaded = load_model(str(save(perceptron(), tmp_path / "net.onnx")))
    layers = weights_of_layers(trace(loaded.module, loaded.examples))
    assert layers == {"dense.kernel_0", "head.kernel_0"}
    masks = zero_share(loaded.module, layers, 0.5)
    zeros = sum(int((mask == 0).sum()) for mask in masks.values())
    assert set(masks) == layers and zeros == round(0.5 * (6 * 12 + 12 + 12 * 3))


def test_zeros_stay_zeros_while_it_trains() -> None:
    module = sequential().eval()
    masks = zero_share(module, ("0.weight", "3.weight", "7.weight"), 0.6)
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    _keep_zeros(module, masks)
    data = [((inputs(8, seed),), torch.arange(8) % CLASSES) for seed in range(4)]
    for optimizer in ("sgd", "adamw"):
        fine_tune(module, data, Recipe(3, lr=0.05, optimizer=optimizer, weight_decay=0.1))
    for name, parameter in module.named_parameters():
        if name in masks:
            assert torch.equal(parameter == 0, masks[name] == 0)
        assert not torch.equal(parameter, before[name])


class Twice(nn.Module):
    """One layer that is called two times."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(torch.relu(self.layer(x)))


def assert_uses_are_macs(module: nn.Module, *given: torch.Tensor) -> None:
    """Each weight's uses times its numbers are all multiply-adds."""
    traced = trace(module, ExampleInputs(given))
    uses = uses_of_weights(traced)
    sizes = {name: p.numel() for name, p in module.named_parameters()}
    assert sum(n * sizes[name] for name, n in uses.items()) == analyse(traced).cost.macs()


def test_zeros_save_the_multiply_adds_that_they_take_part_in() -> None:
    assert_uses_are_macs(sequential().eval(), inputs(2))
    assert_uses_are_macs(
        nn.Sequential(nn.ConvTranspose2d(3, 6, 2, 2), nn.Conv2d(6, 6, 3, groups=3)), inputs(2)
    )
    assert_uses_are_macs(Ten(), torch.randn(2, 5, 12))
    assert_uses_are_macs(Twice(), torch.randn(2, 8))


def test_top5_counts_a_target_among_the_five_best() -> None:
    scores = torch.arange(10.0).repeat(4, 1)
    target = torch.tensor([9, 5, 4, 0])
    assert top1(scores, target) == 0.25
    assert top5(scores, target) == 0.5
    assert top5(scores[:, :, None].expand(-1, -1, 3), target[:, None].expand(-1, 3)) == 0.5


# -- whole sweeps -------------------------------------------------------------------------------


def test_a_sweep_writes_all_its_files(done: Path) -> None:
    assert names_in(done) == ["curves", "report.html", "results.csv", "results.json", "trials"]
    rows = rows_in(done)
    assert [row["kind"] for row in rows] == ["dense", *["structured"] * 3, "unstructured"]
    dense, own, *_, reference = rows
    assert dense["compression_ratio"] == "1.0"
    for row in rows:
        assert row["failure"] == ""
        assert float(row["top1_difference"]) == float(row["top1"]) - float(dense["top1"])
        assert row["dense_top1"] == dense["top1"]
        assert float(row["measured_speedup"]) > 0
    assert float(own["compression_ratio"]) == pytest.approx(2, rel=0.1)
    assert own["command"].startswith("compress ")
    assert "--criterion l2" in own["command"]
    assert float(reference["compression_ratio"]) == pytest.approx(2, rel=0.01)
    assert reference["note"] == "zeros, not smaller"
    assert len(list((done / "curves").glob("*.svg"))) == 6
    for picture in (done / "curves").glob("*.svg"):
        text = picture.read_text()
        ElementTree.fromstring(text)
        assert "dense original" in text
        assert "zeros, not smaller" in text
    results = json.loads((done / "results.json").read_text())
    assert len(results["trials"]) == len(rows)
    assert len(results["checklist"]) == len(ITEMS)


def test_a_command_of_a_row_makes_the_same_network(done: Path, home: Path, tmp_path: Path) -> None:
    row = rows_in(done)[1]
    words = row["command"].split()
    assert main([*words[1:], "--out", str(tmp_path / "again")]) == 0
    after = json.loads((tmp_path / "again" / "report.json").read_text())["after"]
    assert (str(after["params"]), str(after["macs"])) == (row["params"], row["macs"])
    assert str(after["metrics"]["top1"]) == row["top1"]


def test_the_page_needs_nothing_else(done: Path) -> None:
    page = (done / "report.html").read_text()
    assert "prefers-color-scheme: dark" in page
    assert "zeros, not smaller" in page
    assert not re.search(r'(src|href)="(?!#)', page.replace("xlink:", ""))
    assert "url(http" not in page
    assert "<script" not in page
    assert page.count("<svg") == 6


def test_the_same_command_again_runs_nothing(
    done: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {file: file.read_bytes() for file in done.rglob("*") if file.is_file()}

    def refuse(*_: Any) -> Any:
        raise AssertionError("a trial was run again")

    monkeypatch.setattr(sweeping, "run_all", refuse)
    monkeypatch.setattr(latencies, "_time", refuse)
    assert main(command(home, done, *SMALL)) == 0
    after = {file: file.read_bytes() for file in done.rglob("*") if file.is_file()}
    changed = {file.name for file in after if after[file] != before.get(file)}
    assert changed <= {"results.json", "report.html"}, "notes alone differ"


@pytest.mark.slow
def test_a_larger_grid_reuses_what_is_there(
    done: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def spied(tasks: Any, *more: Any) -> Any:
        ran.extend(task.trial.words for task in tasks)
        return pool.run_all(tasks, *more)

    monkeypatch.setattr(sweeping, "run_all", spied)
    (done / "curves" / "of-an-earlier-grid.svg").write_text("")
    assert main(command(home, done, *SMALL[:2], "--criteria", "l2,l1", *SMALL[4:])) == 0
    assert len(list((done / "curves").iterdir())) == 6
    assert ran == ["l1, global, 2×, one-shot, none, seed 0"]
    assert len(rows_in(done)) == 6
    assert main(command(home, done, *SMALL)) == 0
    assert len(rows_in(done)) == 5


def test_failed_trials_are_told_and_the_rest_goes_on(
    done: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(done, tmp_path / "out")
    assert main(command(home, out, *SMALL[:1], "0.5,0.98", *SMALL[2:])) == 1
    shown = capsys.readouterr().err
    assert "trials failed" in shown
    assert "Traceback" not in shown
    rows = rows_in(out)
    failed = [row for row in rows if row["failure"]]
    assert {row["ratio"] for row in failed} == {"0.98"}
    assert all("out of reach" in r["failure"] for r in failed if r["kind"] == "structured")
    assert all(row["top1"] for row in rows if row["ratio"] != "0.98")
    assert "trials failed" in (out / "report.html").read_text()
    assert not any(row["trial"] in {f.stem for f in (out / "trials").iterdir()} for row in failed)


@pytest.mark.slow
def test_an_interruption_costs_the_running_trial(
    done: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(tasks: Any, *more: Any) -> Any:
        for number, both in enumerate(pool.run_all(tasks, *more)):
            if number == 2:
                raise KeyboardInterrupt
            yield both

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(sweeping, "run_all", interrupted)
        assert main(command(home, out, *SMALL)) == 130
    assert names_in(out) == ["trials"]
    assert len(list((out / "trials").glob("*.json"))) == 2
    assert main(command(home, out, *SMALL)) == 0
    assert timeless(out) == timeless(done)


@pytest.mark.slow
def test_a_process_that_dies_is_a_failed_trial(home: Path, tmp_path: Path) -> None:
    deadly = tmp_path / "deadly.py"
    deadly.write_text("import os\ndef metric(outputs, target):\n    os.kill(os.getpid(), 9)\n")
    data = (str(home / "test.npz"),)
    options = Options(criterion="l2", test=data, metric=f"{deadly}:metric", repair=False)
    task = Task("key", Trial(DENSE, options), Subject(str(home / "net.pt")), str(Path.cwd()))
    told: list[str] = []
    ((_, outcome),) = pool.in_processes([task], 2, lambda _, text: told.append(text))
    assert "killed by signal 9" in outcome.failure
    assert told[0] == "load"


@pytest.mark.slow
def test_processes_of_their_own_find_the_same(done: Path, home: Path, tmp_path: Path) -> None:
    assert main(command(home, tmp_path / "out", *SMALL, "--jobs", "2")) == 0
    assert timeless(tmp_path / "out") == timeless(done)


@pytest.mark.slow
def test_ray_finds_the_same(done: Path, home: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra compressor[ray] is not installed")
    out = tmp_path / "out"
    assert main(command(home, out, *SMALL, "--ray", "local", "--jobs", "2")) == 0
    assert timeless(out) == timeless(done)


@pytest.mark.slow
def test_a_killed_sweep_goes_on_and_ends_the_same(done: Path, home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = [sys.executable, "-m", "compressor", *command(home, out, *SMALL)]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(run, start_new_session=True, **quiet)
    deadline = time.monotonic() + 60
    while not list((out / "trials").glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(random.uniform(0, 1.5))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for file in (out / "trials").glob("*.json"):
        json.loads(file.read_text())
    assert main(command(home, out, *SMALL)) == 0
    assert timeless(out) == timeless(done)
    assert not [name for name in names_in(out / "trials") if name.startswith(".")]


def test_what_a_kill_left_half_written_is_removed(tmp_path: Path) -> None:
    for name in (".results.csv.abc", "trials/.key.json.abc", "curves/.a.svg.abc"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("cut off")
    check_folder(tmp_path)
    Store(tmp_path)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


class Ten(nn.Module):
    """Ten classes, so that top-5 says something."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(12, 16), nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.relu(self.up(x)))


def ten(samples: int = 32) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(samples, 12, generator=generator), torch.arange(samples) % 10)


@pytest.mark.slow
def test_from_python_with_training_and_top5(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Ten()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = sweep(
        *(model, torch.randn(2, 12)),
        out=tmp_path / "out",
        data=ten(),
        test=ten(16),
        ratios=0.5,
        criteria="l2",
        recoveries="reinitialise=1",
        seeds=1,
        batch_size=8,
    )
    assert not found.failed
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert found.results["dense"]["metrics"].keys() == {"top1", "top5"}
    assert {row["top5"] is not None for row in found.rows} == {True}
    (reference,) = [each for each in found.results["trials"] if each["kind"] == UNSTRUCTURED]
    steps = [moment["step"] for moment in reference["moments"]]
    assert (steps[0], *steps[-2:]) == ("zeroed", "re-initialised", "1 epoch of fine-tuning")
    assert reference["params"] == round(0.5 * found.results["dense"]["params"])
    answers = {item["asks"]: item["fulfilled"] for item in found.results["checklist"]}
    assert answers["The pruned architecture trained from scratch"]
    assert answers["Top-1 and top-5 accuracy"]
    assert not answers["Several runs with separate random seeds (three or more)"]
    assert len(list((tmp_path / "out" / "curves").glob("*.svg"))) == 2 * 6


def test_objects_that_cannot_travel_are_refused(tmp_path: Path) -> None:
    class Local(Ten):
        pass

    with pytest.raises(UsageError, match="handed to another process"):
        sweep(
            *(Local(), torch.randn(2, 12)),
            out=tmp_path / "out",
            test=ten(16),
            criteria="l2",
            ratios=0.5,
            jobs=2,
        )


# -- numbers, checklist, pictures ---------------------------------------------------------------


def row(method: str, ratio: float, seed: int, value: float, **more: Any) -> dict[str, Any]:
    times = 1 / (1 - ratio)
    criterion, _, scope = method.partition(", ")
    return {
        "kind": "structured",
        "method": method,
        "control": False,
        "criterion": criterion,
        "scope": scope,
        "schedule": "one-shot",
        "recovery": "none",
        "ratio": ratio,
        "seed": seed,
        "failure": "",
        "params": 100,
        "macs": 100,
        "compression_ratio": times,
        "theoretical_speedup": times,
        "measured_speedup": 1.0,
        "latency_ms": 1.0,
        "top1": value,
        "top1_difference": value - 0.9,
        "command": "compress",
        **more,
    }


METHODS = ("l2, global", "l2, layer", "random, global")


def full(seeds: int = 3, methods: Sequence[str] = METHODS) -> list[dict[str, Any]]:
    return [
        row(method, ratio, seed, 0.9 - 0.2 * ratio - 0.01 * seed)
        for method in methods
        for ratio in PAPER_RATIOS
        for seed in range(seeds)
    ]


def asked(rows: list[dict[str, Any]]) -> list[bool | None]:
    facts = {
        "dense": {"metrics": {"top1": 0.9}},
        "model": {"name": "Net"},
        "versions": {"torch": "2"},
        "machine": {"processor": "some"},
    }
    items = checklist(Found(rows, curves_of(rows, ["top1"]), ["top1"], facts))
    return [item.fulfilled for item in items]


def answered(rows: list[dict[str, Any]]) -> dict[str, bool | None]:
    names = [question.__name__ for _, question in ITEMS]
    return dict(zip(names, asked(rows), strict=True))


def test_points_are_means_with_sample_deviations() -> None:
    (curve,) = curves_of([row("l2, global", 0.5, s, v) for s, v in enumerate((0.5, 0.7))], ["top1"])
    (point,) = curve.points
    assert point.numbers["top1"].mean == pytest.approx(0.6)
    assert point.numbers["top1"].deviation == pytest.approx(0.1414, abs=1e-4)
    (alone,) = curves_of([row("l2, global", 0.5, 0, 0.5)], ["top1"])[0].points
    assert alone.numbers["top1"].deviation is None


def changed(**more: Any) -> list[dict[str, Any]]:
    return [{**each, **more} for each in full()]


def fails(each: dict[str, Any]) -> str:
    return "no" if (each["scope"], each["ratio"], each["seed"]) == ("layer", 0.5, 0) else ""


@pytest.mark.parametrize(
    ("rows", "unfulfilled"),
    [
        (full(2), "_seeds"),
        (full(1), "_bars"),
        ([each for each in full() if each["ratio"] < 0.9], "_operating_points"),
        (changed(top1=0.9), "_extremes"),
        (changed(measured_speedup=None), "_are_timed"),
        (changed(theoretical_speedup=None), "_both_costs"),
        ([{**each, "failure": fails(each)} for each in full()], "_alike"),
        (changed(command=""), "_repeatable"),
    ],
)
def test_the_checklist_follows_from_the_sweep(rows: list[dict[str, Any]], unfulfilled: str) -> None:
    assert answered(full())[unfulfilled]
    assert not answered(rows)[unfulfilled]


@pytest.mark.parametrize(
    ("missing", "asks"),
    [
        ("random, global", "A random baseline"),
        ("l2, layer", "A magnitude baseline, uniform over layers"),
        ("l2, global", "A magnitude baseline, global"),
    ],
)
def test_baselines_that_are_not_there_are_missed(missing: str, asks: str) -> None:
    number = [text for text, _ in ITEMS].index(asks)
    those = [method for method in METHODS if method != missing]
    assert list(asked(full()))[number]
    assert not list(asked(full(methods=those)))[number]


def test_a_picture_shows_the_dense_original_and_takes_a_pages_colours() -> None:
    rows = [*full(), *(row("u", r, 0, 0.8, kind=UNSTRUCTURED) for r in PAPER_RATIOS)]
    curves = curves_of(rows, ["top1"])
    picture = Picture("top1", "compression_ratio", False, 0.9)
    text = draw(curves, picture, styles_of(curves), legend=True)
    assert draw(curves, picture, styles_of(curves), legend=True) == text
    assert "dense original" in text
    for ticks in (">2<", ">8<", ">32<"):
        assert ticks in text, "a logarithmic axis of base 2"
    inline = for_a_page(draw(curves, picture, styles_of(curves), legend=False))
    assert inline.startswith("<svg")
    assert "var(--c0, #2a66c8)" in inline
    ElementTree.fromstring(inline)


def test_a_damaged_trial_is_run_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.keep("key", Outcome({"metrics": {"top1": 1.0}}))
    assert store.find("key") is not None
    (tmp_path / "trials" / "key.json").write_text('{"metr')
    assert store.find("key") is None


def test_an_interruption_says_that_trials_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("compressor.studies.sweep.run", interrupted)
    data = str(write_samples(tmp_path / "data.npz"))
    model = str(write_model(tmp_path / "net.pt"))
    out = str(tmp_path / "swept")
    assert main(["sweep", model, "--data", data, "--test", data, "--out", out]) == 130
    shown = " ".join(capsys.readouterr().err.split())
    assert "the same command goes on from there" in shown
    assert "nothing was written" not in shown
