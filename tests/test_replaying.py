"""--plan: other weights of a network are cut by a plan that is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TinyNet, compress, inputs, write_model, write_samples
from torch import nn

from compressor.cli import main
from compressor.errors import CompressorError, UsageError
from compressor.options import Options
from compressor.options.spelling import BUDGET, CHOICE, named_in


def network(seed: int, width: int = 8) -> nn.Module:
    torch.manual_seed(seed)
    return TinyNet(width)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    first = compress(network(0), inputs(), criterion="random", seed=3, round_to=1)
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    path.write_text(first.plan.to_json())
    return path


def test_other_weights_are_cut_by_the_same_plan(path: Path) -> None:
    other = network(1)
    found = compress(other, inputs(), plan=str(path))
    assert found.plan.to_json() == path.read_text()
    (kept,) = [entry["keep"] for entry in found.plan.groups.values() if entry["size"] == 8][:1]
    expected = other.state_dict()["stem.weight"][kept]
    assert torch.equal(found.module.state_dict()["stem.weight"], expected)
    assert "score" not in found.report["seconds"] and "select" not in found.report["seconds"]
    assert {group["reason"] for group in found.report["groups"]} == {"as the plan says"}
    assert found.report["budget"]["predicted"]["macs"] == found.report["after"]["macs"]


def test_the_command_repairs_trains_and_reports(tmp_path: Path, path: Path) -> None:
    write_model(tmp_path / "net.pt")
    data = str(write_samples(tmp_path / "train.npz"))
    command = [str(tmp_path / "net.pt"), "--data", data, "--batch-size", "16", "--format", "pt2"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert main([*command, "--out", str(one), "--ratio", "0.4"]) == 0
    plan = str(one / "plan.json")
    assert main([*command, "--out", str(two), "--plan", plan, "--epochs", "1"]) == 0
    assert (two / "plan.json").read_bytes() == (one / "plan.json").read_bytes()
    steps = [step["step"] for step in json.loads((two / "report.json").read_text())["recovery"]]
    assert steps[0] == "original" and "re-fitted" in steps[2] and "fine-tuning" in steps[-1]
    assert "as the plan says" in (two / "report.md").read_text()


def test_a_dry_run_shows_the_plan(
    tmp_path: Path, path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(network(1).state_dict(), "net.pt")
    factory = f"{Path(__file__).parent / 'tiny.py'}:TinyNet"
    command = [factory, "--weights", "net.pt", "--input", "1x3x8x8", "--plan", str(path)]
    assert main([*command, "--dry-run"]) == 0
    assert "as the plan says" in capsys.readouterr().out


def test_a_plan_of_another_network_is_refused(path: Path) -> None:
    with pytest.raises(CompressorError, match="made for another network"):
        compress(network(0, width=10), inputs(), plan=str(path))


def test_a_plan_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompressorError, match="no plan to read"):
        compress(network(1), inputs(), plan=str(tmp_path / "gone.json"))


@pytest.mark.parametrize(
    "option",
    [
        *({"ratio": 0.5}, {"max_macs": "1G"}, {"max_latency_ms": 1.0}, {"max_drop": 1.0}),
        *({"layer_ratio": ("a=0.1",)}, {"use": "s.json"}, {"steps": 2}, {"sparsity_epochs": 1}),
        *({"of": "params"}, {"round_to": 8}, {"keep_class": True}, {"criterion": "l1"}),
        *({"protect": ("a",)}, {"scope": "layer"}),
    ],
    ids=lambda option: next(iter(option)),
)
def test_a_plan_leaves_nothing_to_choose(option: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--plan has chosen already"):
        Options(plan="plan.json", **option)


def test_options_of_a_choice_are_known_by_their_place() -> None:
    assert {"ratio", "use", "best_effort"} <= set(named_in(Options, BUDGET))
    assert {"criterion", "prune"} <= set(named_in(Options, CHOICE))
    assert not {"epochs", "data"} & set(named_in(Options, BUDGET, CHOICE))
    assert Options(plan="plan.json").spelled() == ["--plan", "plan.json"]
