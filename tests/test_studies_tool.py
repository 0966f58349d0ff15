"""The study runner on tiny networks: what its rows are, its records, its tables and its pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

import compressor
from compressor.graph.programs.redraw import drawable, redraw_
from compressor.options import Options
from compressor.run.journal import Journal
from tools.cifar_resnet import CifarResNet
from tools.jsonl import append_trial, read_trials
from tools.studies import __main__ as command
from tools.studies import making, pages, timing
from tools.studies.bisection import bisect
from tools.studies.making import Runner, make_ours, make_theirs
from tools.studies.methods import METHODS, Row
from tools.studies.models import LENGTH, CharacterModel, trained_here
from tools.studies.networks import ALL, Network, windows
from tools.studies.packages.files import FILES
from tools.studies.studies import STUDIES, Study
from tools.studies.tables import clock_table, study_table
from tools.studies.their_choice import write_plan
from tools.studies.torch_pruning import CHARACTER_MODEL, IMPORTANCES, INSIDE_BLOCKS, Goal, prune
from tools.studies.trial import CLOCK, FLAP, GENERATION, OURS, RIVAL, THEIR_CHOICE, Trial
from tools.surroundings import measured_on


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    module, images = CifarResNet(8).eval(), torch.randn(96, 3, 8, 8)
    redraw_(drawable(module), seed=0)
    with torch.no_grad():
        labels = module(images).argmax(1)
    train, test = (TensorDataset(images[part], labels[part]) for part in (slice(64), slice(64, 96)))
    return Network(module, images[:1], train, test, hint=INSIDE_BLOCKS, batch_size=16)


# -- the trials --------------------------------------------------------------------------------


def test_every_trial_asks_for_what_its_tool_has() -> None:
    """Ours for options of the product alone, so that a user's command makes the same row."""
    trials = {row.trial.key: row.trial for study in STUDIES.values() for row in study.rows}
    for trial in trials.values():
        assert trial.network in ALL
        forms = trial.options.get("forms") or {"": vars(trial)}
        for form in forms.values():
            if form["tool"] in (OURS, FLAP):
                Options.of_keywords(dict(form["options"]))
            else:
                assert form["tool"] in (RIVAL, THEIR_CHOICE)
                later = ("batch_norm", "epochs")
                Goal(**{n: v for n, v in form["options"].items() if n not in later})
    assert len({trial.file for trial in trials.values()}) == len(trials)


def test_their_choice_becomes_a_plan_of_the_same_channels(network: Network, tmp_path: Path) -> None:
    goal = Goal(0.4, round_to=4)
    theirs = prune(network.module, network.example, goal, network.hint)
    write_plan(network.module, network.example, goal, network.hint, tmp_path / "plan.json")
    ours = compressor.compress(
        network.module, network.example, plan=str(tmp_path / "plan.json"), format=("pt2",)
    )
    expected = theirs.state_dict()
    assert any(len(t) < len(network.module.state_dict()[n]) for n, t in expected.items() if t.dim())
    for name, tensor in ours.module.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_ours_are_the_numbers_of_the_products_own_report(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[compressor.Result] = []
    compress = compressor.compress

    def hear(*given: Any, **options: Any) -> compressor.Result:
        made.append(compress(*given, **options))
        return made[-1]

    monkeypatch.setattr(compressor, "compress", hear)
    asked = METHODS["ours"].at(ratio=0.5, calibration=64, format=("pt2",))
    module, found = make_ours(network, asked)
    (result,) = made
    report = result.report
    assert module is result.module
    assert found["macs"] == [report["before"]["macs"], report["after"]["macs"]]
    values = [row["metrics"]["top1"] for row in report["recovery"]]
    assert [value for _, value in found["moments"]] == values
    assert len(values) == 3


@pytest.mark.parametrize("importance", ["magnitude L2", "Taylor"])
def test_the_rival_meets_the_budget_inside_blocks(network: Network, importance: str) -> None:
    assert all(make() is not None for make in IMPORTANCES.values())
    module, found = make_theirs(network, {"ratio": 0.3, "importance": importance})
    assert found["macs"][1] / found["macs"][0] == pytest.approx(0.7, abs=0.02)
    assert module.layer1[0].conv2.out_channels == 16
    assert [step for step, _ in found["moments"]] == ["original", "sliced"]


def test_the_rivals_batch_norm_is_estimated_again(network: Network) -> None:
    plain, _ = make_theirs(network, {"ratio": 0.3})
    module, found = make_theirs(network, {"ratio": 0.3, "batch_norm": True})
    assert [step for step, _ in found["moments"]] == ["original", "sliced", "batch norm"]
    again, before = module.state_dict(), plain.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, again[name])}
    assert changed and all("running" in name for name in changed)


@pytest.mark.slow
def test_a_rivals_training_goes_on_where_it_was_stopped(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"ratio": 0.3, "epochs": 2}
    _, whole = make_theirs(network, asked)
    keep = Journal.keep
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "keep", lambda *given: (keep(*given), 1 / 0)[1])
        with pytest.raises(ZeroDivisionError):
            make_theirs(network, asked, Journal(tmp_path))
    _, again = make_theirs(network, asked, Journal(tmp_path))
    assert [e["loss"] for e in again["epochs"]] == [e["loss"] for e in whole["epochs"]]
    assert again["moments"][-1] == whole["moments"][-1]


def test_what_is_bisected_is_the_nearest() -> None:
    tried: list[float] = []

    def make(share: float) -> float:
        tried.append(share)
        return 1 - round(8 * share) / 8

    assert bisect(make, lambda made: made, 0.3, close=0.01) == 0.25
    assert len(tried) == 14
    tried.clear()
    assert bisect(make, lambda made: made, 0.5, close=0.01) == 0.5
    assert tried == [0.5]


def test_the_character_model_learns_is_kept_and_loses_whole_heads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    text = torch.tensor([ord(c) % 16 for c in "to be or not to be, " * 60])
    inputs, targets = windows(text, 0.0, 1.0).tensors
    assert inputs.shape[1] == LENGTH
    assert torch.equal(inputs[0, 1:], targets[0, :-1])
    torch.manual_seed(0)
    learnt = [
        trained_here("x", CharacterModel(16, 16, 2, 1), lambda _: (inputs, targets), 150)
        for _ in range(2)
    ]
    right = (learnt[0](inputs).argmax(1) == targets).double().mean()
    assert right > 0.3
    assert all(torch.equal(a, b) for a, b in zip(*(m.parameters() for m in learnt), strict=True))
    smaller = prune(learnt[0], inputs[:1], Goal(0.4), CHARACTER_MODEL)
    assert smaller(inputs).shape == learnt[0](inputs).shape
    assert smaller.blocks[0].attention.qkv.out_features % 24 == 0


# -- time --------------------------------------------------------------------------------------


def test_times_are_those_of_the_bench_command(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bench(words: list[str]) -> int:
        assert all(Path(word).exists() for word in words[1:3])
        records = [{"ms": {"p50": 2.0}, "faster": {"value": v}} for v in (1.02, 1.25)]
        how = {"backend": "onnxruntime", "threads": 1, "batch": 1}
        found = {"ways": [{**how, "records": records}, {**how, "records": []}]}
        Path(words[words.index("--out") + 1]).write_text(json.dumps(found))
        return 0

    monkeypatch.setattr(timing, "main", bench)
    forms = {
        "theirs": {"tool": RIVAL, "options": {"ratio": 0.3}},
        "never": {"tool": RIVAL, "options": {"ratio": 0.3, "importance": "of nothing"}},
    }
    runner = Runner({"net": lambda root: network}, Path())
    found = runner.run(Trial("net", CLOCK, {"forms": forms, "batches": [1]}))
    (way,) = found["times"]
    assert way == {
        "backend": "onnxruntime",
        "threads": 1,
        "batch": 1,
        "first_ms": 2.0,
        "noise": pytest.approx(0.02),
        "share": {"theirs": 0.8},
    }
    assert found["macs_left"]["theirs"] == pytest.approx(0.7, abs=0.02)
    assert found["failures"] == {"never": "KeyError: 'of nothing'"}
    monkeypatch.setattr(timing, "main", lambda words: 1)
    with pytest.raises(RuntimeError, match="ended with 1"):
        timing.time_modules({"original": network.module}, network.example)


@pytest.mark.slow
def test_modules_are_timed_against_the_first(network: Network) -> None:
    modules = {"original": network.module, "same": network.module}
    (way,) = timing.time_modules(modules, network.example, seconds=1.0)
    assert way["share"]["same"] == pytest.approx(1, abs=0.5)


def test_modules_are_timed_in_8_bits(network: Network) -> None:
    modules = {"original": network.module, "same": network.module}
    samples = [torch.randn(4, *network.example.shape[1:]) for _ in range(2)]
    how: dict[str, Any] = {"backends": ["onnxruntime"], "seconds": 0.2}
    ways = timing.time_in_8_bits(modules, network.example, samples, **how)
    assert {way["precision"] for way in ways} == {"int8"}
    assert {way["threads"] for way in ways} >= {1}
    assert all(way["share"]["same"] > 0 for way in ways)


# -- records, tables, pages --------------------------------------------------------------------


def test_a_run_goes_on_where_the_last_one_stopped(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [Row("x", Trial("net", RIVAL, {"ratio": ratio})) for ratio in (0.2, 0.3)]
    file = tmp_path / "studies.jsonl"
    append_trial(file, rows[0].trial, {"macs": [2, 1]})
    file.write_text(file.read_text() + '{"trial": {"netw')
    monkeypatch.setattr(command, "STUDIES", {"one": Study("", 0, rows), "two": Study("", 0, rows)})
    monkeypatch.setattr(command, "ALL", {"net": lambda root: network})
    ran: list[Trial] = []
    monkeypatch.setattr(making.Runner, "run", lambda self, trial: ran.append(trial) or {})
    assert command.run(data_root=tmp_path, records=file) == 0
    assert ran == [rows[1].trial]
    assert read_trials(file, Trial)[rows[1].trial.key]["where"]["code"]
    assert command.run(data_root=tmp_path, records=file) == 0
    assert len(ran) == 1


def test_unknown_studies_and_a_missing_folder_are_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command.run(only=("nonsense",)) == 2
    assert "no study: nonsense" in capsys.readouterr().err
    assert command.run(only=("repair",), records=tmp_path / "none") == 2
    assert "--data-root" in capsys.readouterr().err


def test_rows_of_a_machine_that_is_away_are_skipped_with_a_reason(
    network: Network,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ways = ({"ratio": 0.5, "on": "ssh:no.such.host.invalid"}, {"ratio": 0.5})
    rows = [Row("x", Trial("net", OURS, options)) for options in ways]
    monkeypatch.setattr(command, "STUDIES", {"one": Study("", 0, rows)})
    monkeypatch.setattr(command, "ALL", {"net": lambda root: network})
    ran: list[Trial] = []
    monkeypatch.setattr(making.Runner, "run", lambda self, trial: ran.append(trial) or {})
    assert command.run(data_root=tmp_path, records=tmp_path / "studies.jsonl") == 0
    assert ran == [rows[1].trial]
    assert "skipped: --on ssh:no.such.host.invalid: " in capsys.readouterr().err


WHERE = {
    "device": "P",
    "processor": "P",
    "cores": 2,
    "torch": "2",
    "onnxruntime": "1",
    "date": "2026-01-01",
    "code": "abc1234",
}


def record_of(trial: Trial) -> dict[str, Any]:
    """A made-up record: a better end for the rival, and one point more with each seed."""
    if trial.tool == CLOCK:
        labels = trial.options["forms"]
        way = {"backend": "onnxruntime", "threads": 1, "batch": 1, "first_ms": 2.0, "noise": 0.01}
        way["share"] = dict.fromkeys(labels, 0.5)
        return {
            "times": [way],
            "macs_left": dict.fromkeys(labels, 0.4),
            "failures": {},
            "where": WHERE,
        }
    if trial.tool == GENERATION:
        sizes = dict.fromkeys(("original", *trial.options["forms"]), 10**6)
        way = {"batch": 1, "tokens_per_second": dict.fromkeys(sizes, 90.0), "noise": 0.01}
        return {"generation": [way], "bytes": sizes, "where": WHERE}
    last = 0.7 + 0.01 * trial.options.get("seed", 0) + 0.1 * (trial.tool == RIVAL)
    steps = ["original", "sliced"] + ["repaired"] * (trial.tool == OURS)
    steps += ["batch norm"] * bool(trial.options.get("batch_norm"))
    steps += ["trained"] * bool(trial.options.get("epochs"))
    moments = [[step, 0.9 if step == "original" else last] for step in steps]
    sizes = {"macs": [100, 50], "params": [30, 20], "where": WHERE}
    if trial.network not in FILES:
        return {**sizes, "moments": moments}
    clock = {"before_ms": 2.0, "after_ms": 1.0, "faster": 2.0, "noise": 0.01}
    about = dict.fromkeys(("package", "version", "licence", "writer"), "X")
    found = {"package": about, "seconds": {"load": 7.0}, "moments": []}
    return {**sizes, **found, "clock": clock, "peak_mb": 900, "quality": {"F1": [0.8, 0.7]}}


def all_records() -> dict[str, dict[str, Any]]:
    trials = [row.trial for study in STUDIES.values() for row in study.rows]
    return {t.key: {"trial": vars(t), **record_of(t)} for t in trials}


def test_a_table_has_a_row_per_method_with_its_seeds_side_by_side() -> None:
    lines = study_table(STUDIES["repair"], all_records()).splitlines()
    head = "network | method | fewer MACs | fewer parameters | seeds | before | sliced | repaired"
    assert lines[0] == f"| {head} | difference |"
    row = "| ResNet-56 | ours | 2.00× | 1.50× | 3 | 90.00 | 71.00 ± 1.00 | 71.00 ± 1.00 | -19.00 |"
    assert row in lines
    trained = study_table(STUDIES["training"], all_records())
    assert "| ResNet-20 | Torch-Pruning | 2.00× | 1.50× | 1 | 90.00 | 80.00 |  | 80.00 |" in trained
    assert trained.splitlines()[0].endswith("| trained | difference | time |")
    assert "| ResNet-56 | 1 | 2 ms | 1.0% | 2.00× (0.400) |" in clock_table(
        STUDIES["latency"], all_records()
    )
    assert study_table(STUDIES["repair"], {}) == ""


def test_networks_that_were_timed_in_other_forms_have_a_table_of_their_own() -> None:
    tables = clock_table(STUDIES["runtimes"], all_records()).split("\n\n")
    assert len(tables) > 1
    heads = [table.splitlines()[0] for table in tables]
    assert len(set(heads)) == len(heads)
    assert not any("|  |" in table for table in tables)  # no cell is empty


def test_a_machine_is_named_once_with_its_days_and_codes() -> None:
    days = {"2026-01-02": ("b", "a", "b"), "2026-01-01": (None,)}
    places = [
        {**WHERE, "date": day, "code": code} if code else _without_code(day)
        for day, codes in days.items()
        for code in codes
    ]
    said = measured_on([{"where": place} for place in places] + [{}])
    versions = "P, 2 cores, torch 2, onnxruntime 1"
    days_said = "2026-01-01, 2026-01-02 (the product's code of a, b)"
    assert said == f"Measured on: {versions}: {days_said}."
    assert measured_on([{}]) == ""


def _without_code(day: str) -> dict[str, Any]:
    return {**{name: value for name, value in WHERE.items() if name != "code"}, "date": day}


def test_the_pages_say_what_was_run_what_is_open_and_where_the_rival_is_ahead(
    tmp_path: Path,
) -> None:
    own = {"language.md", "latency.md", "onnx-files.md", "peers.md", "reconstruction.md"}
    assert set(pages.NAMES) == own | {"runtimes.md", "trained.md", "training.md"}
    assert "Open, `python" in pages.page("reconstruction.md", tmp_path)
    with (tmp_path / "studies.jsonl").open("w") as file:
        file.writelines(json.dumps(record) + "\n" for record in all_records().values())
    written = {name: pages.page(name, tmp_path) for name in pages.NAMES}
    assert not any("Open, `python" in page for page in written.values())
    assert "the product's code of abc1234" in written["training.md"]
    row = "| --ratio 0.5 | 50.0% | 66.7% | 70.0 | 2 → 1 ms | 2.00× | 1.0% | 7 | 0.9 GB |"
    assert row in written["onnx-files.md"].splitlines()
    assert "| 25% fewer, layers too | 1.00 MB | 90 |" in written["language.md"].splitlines()
    assert "| ResNet-56 | ONNX Runtime | 1 | 1 | 2 ms | 1.0% | 2.00×" in written["runtimes.md"]
    assert "of 80.0 (F1) are left: 70.0 by `--ratio 0.5`" in written["onnx-files.md"]
    ahead = written["peers.md"].partition("earlier")[0]
    budget = "ResNet-56 without 50% of the MACs, nothing trained"
    assert f"- top-1, {budget}: 80.00 and not 71.00." in ahead


@pytest.mark.parametrize(("share", "is_ahead"), [(0.5, True), (0.62, False)])
def test_a_rival_that_takes_longer_than_was_asked_for_is_not_ahead(
    share: float, is_ahead: bool
) -> None:
    study, records = STUDIES["equal time training"], all_records()
    for record in records.values():
        of = record["trial"]["tool"]
        record["measured"] = {"share": share if of == RIVAL else 0.5}
        record["moments"] = [["original", 0.9], ["sliced", 0.1], ["last", 0.8 + (of == RIVAL) / 9]]
    said = "\n".join(pages._ahead_in(study, records))
    budget = "ResNet-56 without 50% of the time, 1 epoch"
    assert (f"top-1, {budget}: 91.11 and not 80.00." in said) is is_ahead


def test_the_smaller_loss_is_the_better_one() -> None:
    records = all_records()
    for record in records.values():
        is_rival = record["trial"]["tool"] == RIVAL
        record["moments"] = [["original", 1.5], ["sliced", 2.0 if is_rival else 3.0]]
    said = "\n".join(pages._ahead_in(STUDIES["language"], records))
    budget = "stories260k, a folder without 25% of the MACs, nothing trained"
    assert f"loss, {budget}: 2.00 and not 3.00." in said
    assert "top-1" not in said


def test_the_committed_pages_are_what_the_records_say() -> None:
    for name in pages.NAMES:
        assert (command.RESULTS / name).read_text() == pages.page(name, command.RESULTS), name
