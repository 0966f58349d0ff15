"""The latency study: the incumbent's choice on one small network, the file and the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compressor.graph.analysis import analyse
from compressor.graph.trace import trace
from compressor.records import ExampleInputs
from tools.cifar_resnet import CifarResNet
from tools.latency import incumbent
from tools.latency.studies import METHODS, STUDIES, Bench
from tools.latency.table import curves, draw, to_markdown, top1_at
from tools.latency.timing import exported_module, timed
from tools.latency.trial import Trial, append, read


@pytest.fixture(scope="module")
def small() -> nn.Module:
    torch.manual_seed(0)
    return CifarResNet(8).eval()


EXAMPLE = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("step", [None, 4])
def test_the_incumbents_choice_is_translated_channel_by_channel(
    small: nn.Module, step: int | None
) -> None:
    network = analyse(trace(small, ExampleInputs((EXAMPLE,))))
    keep = incumbent.chosen(small, EXAMPLE, network, 0.3, step)
    own, left = incumbent.pruned(small, EXAMPLE, 0.3, step, inside_blocks=True)
    sizes = network.sizes({name: len(kept) for name, kept in keep.items()})
    assert network.cost.macs(sizes) / network.cost.macs() == pytest.approx(left)
    assert left == pytest.approx(0.7, abs=0.05 if step else 0.02)
    before, after = small.state_dict(), own.state_dict()
    for name in (group.removesuffix(":0") for group in keep):
        assert torch.equal(before[name][list(keep[f"{name}:0"])], after[name])


def test_networks_take_turns_with_the_original(small: nn.Module, tmp_path: Path) -> None:
    original = exported_module(small, EXAMPLE, tmp_path / "a.onnx")
    narrow = CifarResNet(8).eval()
    smaller = exported_module(narrow, EXAMPLE, tmp_path / "b.onnx")
    found = timed(original, {"same": smaller}, seconds=0.2)
    assert found["original_ms"] > 0
    assert 0.2 < found["share"]["same"] < 5
    assert found["noise"] >= 0


def test_a_second_run_goes_on_where_the_first_stopped(tmp_path: Path) -> None:
    path, (one, two) = tmp_path / "records.jsonl", STUDIES["macs"][:2]
    append(path, one, {"x": 1})
    with path.open("a") as file:
        file.write('{"trial": {"study": "macs", "netw')
    known = read(path)
    assert one.key in known
    assert two.key not in known
    assert known[one.key]["x"] == 1


def test_every_trial_can_be_run(tmp_path: Path) -> None:
    trials = [trial for study in STUDIES.values() for trial in study]
    assert len({trial.key for trial in trials}) == len(trials)
    assert {t.method for t in STUDIES["accuracy"]} == METHODS.keys()
    assert Bench(tmp_path).name == ""


WHERE = {"processor": "P", "cores": 2, "date": "2026-01-01", "torch": "2", "onnxruntime": "1"}


def times(share: float, name: str = "result") -> dict[str, Any]:
    return {"batch": 1, "original_ms": 2.0, "noise": 0.01, "ms": {}, "share": {name: share}}


def records() -> list[dict[str, Any]]:
    def of(study: str, method: str = "", **found: Any) -> dict[str, Any]:
        trial = Trial(study, "net", method).__dict__
        return {"trial": trial, "where": WHERE, **found}

    half = {"before": 93.0, "after": 92.2, "lost": 0.8, "error": 0.2, "samples": 5000}
    return [
        of(
            "macs",
            macs_left={"ours": 0.5},
            failures={"theirs": "E: no"},
            times=[times(0.5, "ours")],
        ),
        of(
            "share",
            measured={"before_ms": 2.0, "share": 0.49, "predicted": 0.5, "tries": 2},
            times=[times(0.485)],
            stages={"time layers": 10.0, "select": 0.1, "correct by the clock": 9.0},
            macs_left=0.4,
        ),
        of("accuracy", "a", top1=90.0, original_top1=94.0, macs_left=0.5, times=[times(0.5)]),
        of("accuracy", "a", top1=92.0, original_top1=94.0, macs_left=0.6, times=[times(0.75)]),
        of("accuracy", "b", top1=80.0, original_top1=94.0, macs_left=0.5, times=[times(0.8)]),
        of(
            "drop",
            floor={"trials": [{"removed": 0.4, "drop": 0.9, "is_within": True}]},
            validation=half,
            test=half,
            times=[times(0.6)],
            macs_left=0.55,
        ),
    ]


def test_the_page_has_every_study(tmp_path: Path) -> None:
    page = to_markdown(records(), "picture.svg")
    for text in ("2.00× (0.500)", "theirs: E: no", "**0.490**", "90.80", "+0.80 ± 0.20", "1.67×"):
        assert text in page
    assert "picture.svg" in page
    assert "P, 2 cores" in page
    draw(records(), tmp_path / "picture.svg")
    assert "<svg" in (tmp_path / "picture.svg").read_text()


def test_accuracy_is_read_between_points_and_not_beyond() -> None:
    found = curves(r for r in records() if r["trial"]["study"] == "accuracy")
    assert top1_at(found["a"], 0.75) == 92.0
    assert top1_at(found["a"], 0.625) == pytest.approx(91.0)
    assert top1_at(found["b"], 0.9) == pytest.approx(87.0)
    assert top1_at(found["b"], 0.7) is None
