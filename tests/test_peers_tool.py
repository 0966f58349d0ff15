"""The comparison with Torch-Pruning on small networks, its text data, its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.records import ExampleInputs
from tools.peers import coverage, shakespeare
from tools.peers.coverage import compared
from tools.peers.data import Shakespeare
from tools.peers.incumbent import METHODS_HERE
from tools.peers.studies import STUDIES
from tools.peers.table import to_markdown
from tools.training.run import Runner
from tools.training.trial import Trial
from tools.zoo.members import Subject


class Block(nn.Module):
    """A stream behind norms, and an inner width that either tool may cut."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(6, 16), nn.Linear(16, 5)
        self.norm = nn.LayerNorm(16)
        self.up, self.down = nn.Linear(16, 24), nn.Linear(24, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.head(x + self.down(self.up(self.norm(x)).relu()))


class Flattened(nn.Module):
    """Its forward fixes a size, which Torch-Pruning does not change."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8 * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).relu().view(-1, 8 * 16))


def found(module: nn.Module, *shape: int) -> dict[str, Any]:
    told: list[dict[str, Any]] = []
    subject = Subject(module.eval(), ExampleInputs((torch.randn(1, *shape),)))
    return compared(lambda: subject, lambda record: told.append(dict(record)))


def test_both_pass_where_both_can() -> None:
    record = found(Block(), 6)
    for tool in ("ours", "torch_pruning"):
        assert record[tool]["status"] == "passed", record[tool]
        assert record[tool]["twin"] < 1e-12
        assert record[tool]["removed"] > 0.1


def test_a_network_that_breaks_is_a_failure_with_its_reason() -> None:
    record = found(Flattened(), 3, 4, 4)
    assert record["ours"]["status"] == "passed"
    assert record["torch_pruning"]["status"] == "failed"
    assert "shape" in record["torch_pruning"]["error"]["first_line"]


def test_the_twin_sees_when_other_channels_were_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    prune = coverage._pruned

    def other(*given: Any) -> Any:
        return [(name, dim, [0]) for name, dim, _ in prune(*given)]

    monkeypatch.setattr(coverage, "_pruned", other)
    record = found(Block(), 6)["torch_pruning"]
    assert record["status"] == "failed"
    assert "masked twin" in record["error"]["first_line"]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shakespeare:
    (tmp_path / "tinyshakespeare.txt").write_text("to be or not to be, " * 500)
    for name, value in {"LAYERS": 1, "WIDTH": 16, "STEPS": 30}.items():
        monkeypatch.setattr(shakespeare, name, value)
    return Shakespeare(tmp_path, tmp_path / "scratch")


def test_the_character_model_learns_and_is_kept(play: Shakespeare) -> None:
    module = play.network("character GPT")
    assert play.test(module) > 20
    again = play.network("character GPT")
    pairs = zip(module.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    inputs, targets = shakespeare.windows(play.root, "test")
    assert inputs.shape == targets.shape
    assert torch.equal(inputs[0, 1:], targets[0, :-1])


@pytest.mark.parametrize("method", ["ours", "Torch-Pruning"])
def test_the_character_model_is_made_smaller_and_trained(
    play: Shakespeare, tmp_path: Path, method: str
) -> None:
    runner = Runner(play, tmp_path / "unfinished", METHODS_HERE, STUDIES)
    record = runner.run(Trial("accuracy", "character GPT", method, 1.25, 1))
    assert record["macs"] / record["base_macs"] == pytest.approx(0.8, abs=0.1)
    assert record["epochs"][0]["metric"] > 10


def record(trial: Trial, tuned: float) -> dict[str, Any]:
    where = {"device": "x", "threads": 1, "torch": "2", "date": "today"}
    if not trial.method:
        share = {"ours": 0.9, "Torch-Pruning": 0.8, "ours in steps of 8": 0.7}
        times = [{"batch": 1, "original_ms": 1.0, "noise": 0.01, "share": share}]
        return {"trial": vars(trial), "times": times, "where": where}
    return {
        "trial": vars(trial),
        "base": 90.0,
        "sliced": 10.0,
        "tuned": tuned,
        "best": tuned,
        "macs": 50,
        "base_macs": 100,
        "params": 5,
        "base_params": 10,
        "where": where,
    }


def member(name: str, **tools: dict[str, Any]) -> dict[str, Any]:
    run = {"machine": "x", "threads": "1", "date": "today", "versions": {"torch": "2"}}
    return {"zoo": "timm", "name": name, **tools, **run}


def test_the_page_says_first_where_the_other_is_ahead_and_what_is_open() -> None:
    first = [t for t in STUDIES["accuracy"] if t.network == "MobileNet-V1"]
    accuracy = [record(t, 80.0 if t.method == "Torch-Pruning" else 70.0) for t in first]
    fine = {"status": "passed", "analyse_s": 1.0, "slice_s": 2.0, "twin": 0.0, "removed": 0.5}
    quick = {**fine, "analyse_s": 0.1, "slice_s": 0.1}
    bad = {"status": "failed", "error": {"kind": "KeyError", "first_line": "a|b", "where": ""}}
    members = [
        member("both", ours=fine, torch_pruning=quick),
        member("one", ours=fine, torch_pruning=bad),
        member("other", ours=bad, torch_pruning=quick),
        member("none", error={"kind": "Ended"}),
    ]
    page = to_markdown(accuracy, members)
    ahead = page.partition("## Accuracy")[0]
    assert "MobileNet-V1: 80.00 and not 70.00" in ahead
    assert "slicing takes 0.10 s and not 2.00 s" in ahead
    assert "timm/other" in ahead
    assert "| timm | 3 | 2 | 2 | 1 | 1 |" in page
    assert "| timm | one | KeyError: a\\|b |" in page
    assert "Open, not run yet: character GPT (ours)" in page
    assert "Ended before either was done: timm/none." in page
