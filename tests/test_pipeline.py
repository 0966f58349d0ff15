"""From Python: the whole way through, and back from the folder."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tiny import (
    CLASSES,
    RESULT_FILES,
    HardCoded,
    TinyNet,
    compress,
    inputs,
    names_in,
    sequential,
    write_model,
    write_samples,
)
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import compressor
from compressor.cli import demo
from compressor.errors import CompressorError, UsageError
from compressor.formats.provenance import provenance_of
from compressor.options import Options
from compressor.records import Plan
from compressor.report import to_markdown
from compressor.run.compress import plan
from compressor.run.decide import describe_budget
from compressor.run.opening import open_run
from compressor.run.subject import Subject
from compressor.score.criteria import CRITERIA
from compressor.slicing import slice_network
from compressor.watch import Silent, Stopwatch


@pytest.fixture(scope="module")
def network() -> TinyNet:
    torch.manual_seed(0)
    return TinyNet()


def labelled(samples: int = 64, classes: int = CLASSES) -> TensorDataset:
    return TensorDataset(inputs(samples), torch.arange(samples) % classes)


@pytest.fixture(scope="module")
def result(network: TinyNet) -> compressor.Result:
    return compressor.compress(
        network, inputs(), data=labelled(), epochs=1, lr=0.001, batch_size=16, round_to=1
    )


@pytest.fixture(scope="module")
def folder(result: compressor.Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "net"
    result.save(path)
    return path


def assert_same(one: nn.Module, other: nn.Module) -> None:
    x = inputs(3, seed=1)
    with torch.no_grad():
        torch.testing.assert_close(one(x), other(x), rtol=1e-4, atol=1e-5)


def test_half_of_the_macs_are_gone(result: compressor.Result) -> None:
    report = result.report
    one_channel = 8 * 8 * 9 * 8 * 2
    assert report["after"]["macs"] <= 0.5 * report["before"]["macs"]
    assert report["after"]["macs"] > 0.5 * report["before"]["macs"] - one_channel
    assert report["budget"]["predicted"]["macs"] == report["after"]["macs"]
    assert report["budget"]["predicted"]["params"] == report["after"]["params"]
    assert sum(p.numel() for p in result.module.parameters()) == report["after"]["params"]


def test_report_tells_the_whole_story(result: compressor.Result) -> None:
    report = result.report
    assert report["schema"] == 1
    assert [step["step"] for step in report["recovery"]] == [
        "original",
        "sliced",
        "2 layers re-fitted by least squares on 52 samples",
        "1 epoch of fine-tuning",
    ]
    assert report["evaluated_on"] == "a tenth of the training data, held out (6 samples)"
    assert report["after"]["metrics"] == report["recovery"][-1]["metrics"]
    assert report["form"]["form"] == "class"
    assert report["seed"] == 0
    assert report["examples"]["inputs"][0]["shape"] == [1, 3, 8, 8]
    assert len(report["model"]["sha256"]) == 64
    assert {group["size"] for group in report["groups"]} == {8}
    assert all(0 < group["kept"] <= group["size"] for group in report["groups"])
    assert {"load", "trace", "slice", "fine-tune", "write and verify onnx"} <= report[
        "seconds"
    ].keys()
    for state in ("before", "sliced", "after"):
        assert report[state]["latency"][0]["threads"] == 1
        assert report[state]["size_bytes"] > 0
    assert report["protected"]


def test_nothing_outside_is_changed(network: TinyNet) -> None:
    """Neither the model that is passed in, nor the random numbers, nor the temporary directory."""
    model = copy.deepcopy(network).train()
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    found = compress(model, inputs(), data=labelled(), epochs=1, criterion="random")
    assert torch.equal(torch.rand(3), expected)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    files = found._files.path
    assert files.is_dir()
    del found
    assert not files.exists()


def test_same_seed_same_result(network: TinyNet, result: compressor.Result) -> None:
    again = compress(
        network, inputs(), data=labelled(), epochs=1, lr=0.001, batch_size=16, round_to=1
    )
    assert again.plan == result.plan
    state = again.module.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in result.module.state_dict().items())


def test_seed_draws_the_random_criterion(network: TinyNet) -> None:
    def keep(seed: int) -> Any:
        options = Options(criterion="random", seed=seed, format=())
        return plan(Subject(network, inputs()), options, Silent())[1].keep

    assert keep(1) == keep(1)
    assert keep(1) != keep(2)


def test_folder_holds_every_file(folder: Path) -> None:
    assert names_in(folder) == sorted([*RESULT_FILES, "training.svg"])
    report = json.loads((folder / "report.json").read_text())
    assert report["after"]["size_bytes"] == (folder / "model.onnx").stat().st_size
    assert "| MACs |" in (folder / "report.md").read_text()
    Plan.from_json((folder / "plan.json").read_text())


def test_class_comes_back_from_the_folder(result: compressor.Result, folder: Path) -> None:
    back = compressor.load(folder, TinyNet)
    assert isinstance(back, TinyNet)
    assert not back.training
    assert_same(result.module, back)


def test_class_comes_back_by_a_spec_with_arguments(folder: Path) -> None:
    assert_same(compressor.load(folder, "tiny:TinyNet", width=8), compressor.load_program(folder))


def test_program_comes_back_without_the_class(result: compressor.Result, folder: Path) -> None:
    assert_same(result.module, compressor.load_program(folder))


def test_onnx_file_computes_the_same(result: compressor.Result, folder: Path) -> None:
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    x = inputs(5, seed=2)
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, result.module(x).numpy(), rtol=1e-3, atol=1e-5)


def test_result_goes_on_training(result: compressor.Result) -> None:
    module = copy.deepcopy(result.module).train()
    module(inputs(4)).sum().backward()
    assert all(p.grad is not None for p in module.parameters())


def test_plan_for_another_network_is_refused(folder: Path) -> None:
    with pytest.raises(CompressorError, match="another network"):
        compressor.load(folder, lambda: TinyNet(width=10))


def test_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompressorError, match="no plan"):
        compressor.load(tmp_path, TinyNet)
    (tmp_path / "plan.json").write_text("[]")
    with pytest.raises(CompressorError, match="no plan"):
        compressor.load(tmp_path, TinyNet)


def test_weights_of_something_else_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_bytes((folder / "plan.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(CompressorError, match="weights do not fit"):
        compressor.load(tmp_path, TinyNet)


def test_class_that_cannot_follow_comes_back_as_a_program(tmp_path: Path) -> None:
    torch.manual_seed(0)
    found = compress(HardCoded(), inputs())
    found.save(tmp_path / "net")
    assert found.report["form"]["form"] == "program"
    assert any("is a program" in note for note in found.report["notes"])
    with pytest.raises(CompressorError, match="load_program"):
        compressor.load(tmp_path / "net", HardCoded)
    assert_same(found.module, compressor.load_program(tmp_path / "net"))
    compress(HardCoded(), inputs(), format=("onnx",)).save(tmp_path / "onnx")
    with pytest.raises(CompressorError, match="again with --format pt2"):
        compressor.load(tmp_path / "onnx", HardCoded)
    with pytest.raises(CompressorError, match=r"no model.pt2 in this result[\s\S]*--format pt2"):
        compressor.load_program(tmp_path / "onnx")


def test_save_does_not_replace_without_force(result: compressor.Result, tmp_path: Path) -> None:
    result.save(tmp_path / "net")
    with pytest.raises(UsageError, match="exists"):
        result.save(tmp_path / "net")
    result.save(tmp_path / "net", force=True)
    assert names_in(tmp_path / "net") == sorted([*RESULT_FILES, "training.svg"])


class Unlabelled(torch.utils.data.Dataset[Any]):
    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> tuple[Tensor, None]:
        return inputs(1, seed=index)[0], None


def test_without_labels_the_original_teaches() -> None:
    torch.manual_seed(0)
    model = TinyNet().eval()
    model.norm = nn.Identity()
    x = inputs(64, seed=99)

    def distance(other: nn.Module) -> float:
        with torch.no_grad():
            return float((other(x) - model(x)).square().mean())

    run, decision = plan(Subject(model, data=Unlabelled()), Options(ratio=0.6, format=()), Silent())
    untaught = slice_network(run.trace, run.network, decision.keep).module
    found = compress(model, data=Unlabelled(), epochs=8, lr=0.1, batch_size=8, ratio=0.6)
    assert distance(found.module) < 0.85 * distance(untaught)
    assert found.report["after"]["metrics"]["fidelity"] > 0.99
    assert "against the original" in found.report["evaluated_on"]
    assert found.report["examples"]["origin"] == "noise shaped like the first sample of the data"


def test_taylor_scores_differ_from_those_of_the_weights(network: TinyNet) -> None:
    subject = Subject(network, inputs(), data=labelled())
    keeps = [
        plan(subject, Options(criterion=c, format=()), Silent())[1].keep for c in ("taylor", "l2")
    ]
    assert keeps[0] != keeps[1]


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_makes_a_plan(network: TinyNet, criterion: str) -> None:
    options = Options(criterion=criterion, batch_size=8, calibration=20, format=())
    run, found = plan(Subject(network, inputs(), data=labelled()), options, Silent())
    assert describe_budget(run, found)["removed"] >= 0.5
    for group in run.network.groups:
        dropped = np.delete(run.scores[group.name], found.keep[group.name])
        assert dropped.max() <= run.scores[group.name][list(found.keep[group.name])].min()
    told = [note for note in run.stopwatch.notes if "measures nothing" in note]
    assert len(told) == (criterion in ("bn-scale",) and len(run.network.groups) > 1)


def test_how_scores_are_formed_can_be_chosen(network: TinyNet) -> None:
    def scores(**options: Any) -> list[float]:
        run, _ = plan(Subject(network, inputs()), Options(format=(), **options), Silent())
        return [float(s) for row in run.scores.values() for s in row]

    usual = scores()
    for options in (
        {"reduction": "max"},
        {"normalise": "max"},
        {"criterion": "lp", "norm_p": 1.5},
    ):
        assert scores(**options) != usual
    assert scores(criterion="lp") == usual
    assert scores(reduction="mean", normalise="mean") == usual


def test_only_parameters_are_scored(network: TinyNet) -> None:
    other = copy.deepcopy(network)
    other.norm.running_var.mul_(torch.arange(1, 9))
    scores = [
        plan(Subject(n, inputs()), Options(format=()), Silent())[0].scores for n in (network, other)
    ]
    assert all((scores[0][name] == scores[1][name]).all() for name in scores[0])


class Picky(TinyNet):
    """Its code asks how many samples there are, so that the trace's number is fixed."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * 0.5 if len(x) == 4 else x)


@pytest.mark.parametrize("criterion", ["activation", "fisher", "taylor"])
def test_programs_with_a_static_batch_get_such_batches(criterion: str) -> None:
    torch.manual_seed(0)
    options = Options(criterion=criterion, batch_size=16, calibration=11, format=())
    subject = Subject(Picky().eval(), inputs(4), data=labelled(30))
    run, found = plan(subject, options, Silent())
    assert run.trace.batch_symbol is None
    assert describe_budget(run, found)["removed"] >= 0.5


def test_activations_need_no_labels(network: TinyNet) -> None:
    subject = Subject(network, inputs(), data=Unlabelled())
    assert plan(subject, Options(criterion="wanda", format=()), Silent())[1].keep
    with pytest.raises(UsageError, match="fisher needs labels"):
        plan(subject, Options(criterion="fisher"), Silent())


def share_above_zero(outputs: Tensor, target: Tensor) -> float:
    return float((outputs > 0).double().mean())


def test_own_loss_and_metric_are_used(network: TinyNet) -> None:
    calls = []

    def loss(outputs: Tensor, target: Tensor) -> Tensor:
        calls.append(len(target))
        return outputs.square().mean()

    found = compress(
        network,
        inputs(),
        data=labelled(32, classes=1000),
        test=labelled(8, classes=1000),
        loss=loss,
        metric="test_pipeline:share_above_zero",
        epochs=1,
    )
    assert calls
    assert found.report["after"]["metrics"].keys() == {"share_above_zero"}
    assert found.report["evaluated_on"] == "the test data (8 samples)"


def test_spec_instead_of_a_module(tmp_path: Path) -> None:
    model = write_model(tmp_path / "net.pt")
    samples = write_samples(tmp_path / "data.npz")
    found = compress(str(model), data=str(samples), repair=False)
    assert found.report["model"]["weights"] == "loaded"
    assert [step["step"] for step in found.report["recovery"]] == ["original", "sliced"]


def test_repair_needs_no_batch_norm(tmp_path: Path) -> None:
    bare = nn.Sequential(*(m for m in sequential() if not isinstance(m, nn.BatchNorm2d)))
    found = compress(bare, inputs(), data=labelled(32))
    steps = [step["step"] for step in found.report["recovery"]]
    assert steps == ["original", "sliced", "2 layers re-fitted by least squares on 29 samples"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rato": 0.5}, "no option 'rato'"),
        ({"criterion": "l3"}, "l2, l1"),
        ({"of": "flops"}, "macs, params"),
        ({"ratio": 0}, "between 0 and 1"),
        ({"layer_ratio": {"stem": 2}}, "between 0 and 0.9"),
        ({"ratio": "half"}, "'half'"),
        ({"round_to": 0}, "--round-to"),
        ({"max_macs": "2X"}, "no number such as 2G"),
        ({"max_macs": "-1"}, "no number such as 2G"),
        ({"max_macs": "1G", "ratio": 0.5}, "one of --ratio and --max-macs"),
        ({"max_macs": 10, "max_params": 10}, "one of --max-macs and --max-params"),
        ({"max_params": "1M", "of": "channels"}, "--max-params is of the params"),
        ({"max_params": "1M"}, "within 1,000,000 already"),
        ({"std": (0.0,)}, "positive"),
        ({"device": "cuda:77"}, "not available"),
        ({"epochs": 1}, "needs training data"),
        ({"criterion": "taylor"}, "needs training data"),
        ({"data": object()}, "no dataset"),
        ({"data": labelled(), "criterion": "taylor", "loss": "nowhere:loss"}, "nowhere"),
    ],
)
def test_options_that_cannot_be_meant(
    network: TinyNet, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        compress(network, inputs(), **options)


def test_options_spell_the_command_line() -> None:
    options = Options(ratio=0.3, protect=("a.*", "b"), repair=False, best_effort=True)
    assert options.spelled() == [
        *("--ratio", "0.3", "--protect", "a.*", "--protect", "b"),
        *("--best-effort", "--no-repair"),
    ]
    assert Options().spelled() == ["--ratio", "0.5"]
    assert Options(layer_ratio=("a=0.1",)).spelled() == ["--layer-ratio", "a=0.1"]


@pytest.mark.parametrize("unit", ["macs", "params"])
def test_a_limit_is_met_within_a_channel(network: TinyNet, unit: str) -> None:
    halved = compress(network, inputs(), 0.4, of=unit).report["after"][unit]
    found = compress(network, inputs(), **{f"max_{unit}": halved}).report
    assert found["after"][unit] == halved
    before = found["before"][unit]
    assert found["budget"]["of"] == unit
    assert found["budget"]["ratio"] == pytest.approx(1 - halved / before)
    less = compress(network, inputs(), **{f"max_{unit}": halved - 1}).report
    assert less["after"][unit] < halved


def test_limits_are_written_as_people_write_numbers() -> None:
    limits = [Options(max_macs=text).limit for text in ("2G", "1.5m", "350k", "12")]
    assert [limit and limit.most for limit in limits] == [2 * 10**9, 1_500_000, 350_000, 12]
    assert Options(max_params="5M").spelled() == ["--max-params", "5M", "--of", "params"]


def test_layer_ratios_alone_are_the_budget(network: TinyNet) -> None:
    found = compress(network, inputs(), layer_ratio={"stem": 0.25})
    assert {name: len(g["keep"]) for name, g in found.plan.groups.items()} == {"stem.weight:0": 6}
    assert found.report["budget"]["ratio"] is None
    assert "as --layer-ratio says" in to_markdown(found.report)


def test_demo_network_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "EPOCHS", 3)
    train, test = demo.digits()
    assert len(train) + len(test) == 1797
    network = demo.train_network(train, seed=0, tick=lambda done, total, note: None)
    batch = test.fetch(range(len(test)))
    with torch.no_grad():
        correct = batch.inputs.to(network).argmax(1) == batch.target
    assert correct.double().mean() > 0.9


def test_the_onnx_file_says_where_it_comes_from(result: compressor.Result, folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    said = {entry.key: entry.value for entry in model.metadata_props}
    report, plan_text = result.report, (folder / "plan.json").read_bytes()
    assert said == {
        "compress.source.sha256": report["model"]["sha256"],
        "compress.plan.sha256": hashlib.sha256(plan_text).hexdigest(),
        "compress.macs.before": str(report["before"]["macs"]),
        "compress.macs.after": str(report["after"]["macs"]),
        **{f"compress.version.{n}": report["versions"][n] for n in ("compressor", "torch", "onnx")},
    }
    assert provenance_of(folder) == said


def test_what_an_incomplete_folder_does_not_tell_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("[]")
    assert {name.split(".")[1] for name in provenance_of(tmp_path)} == {"version"}


def test_what_is_loaded_here_is_traced_without_a_copy_and_what_others_hold_with_one(
    tmp_path: Path,
) -> None:
    model, factory = str(write_model(tmp_path / "net.pt")), tmp_path / "nets.py"
    layers = "nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)"
    factory.write_text(f"from torch import nn\nnet = nn.Sequential({layers})\n")
    for subject, shares in ((model, True), (TinyNet(), False), (f"{factory}:net", False)):
        run = open_run(Subject(subject, inputs()), Options(format=()), Stopwatch(Silent()))
        pairs = zip(run.loaded.module.parameters(), run.trace.module.parameters(), strict=True)
        assert {a.data_ptr() == b.data_ptr() for a, b in pairs} == {shares}
