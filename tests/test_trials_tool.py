"""The trials' runner end to end on one small network, its file and its page."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

from tools.cifar_resnet import CifarResNet
from tools.trials import incumbent
from tools.trials.networks import Measured, divergence
from tools.trials.ours import REPAIRS, Ours, drawn
from tools.trials.studies import STUDIES
from tools.trials.table import to_markdown
from tools.trials.trial import Trial, append, missing, read
from tools.trials.vision_transformer import build, train_


@pytest.fixture(scope="module")
def measured() -> Measured:
    torch.manual_seed(0)
    module = CifarResNet(8).eval()
    images = torch.randn(80, 3, 16, 16)
    with torch.no_grad():
        reference = module(images)
    train = TensorDataset(images, reference.argmax(1))
    return Measured(
        module, images[:2], train, lambda m: {"divergence": divergence(reference, m(images))},
        "divergence",
    )  # fmt: skip


@pytest.fixture(scope="module")
def ours(measured: Measured) -> Ours:
    return Ours(measured)


def of(choice: str, repair: str = "none", **options: object) -> Trial:
    return Trial("parts", "small", choice, repair, samples=40, **options)  # type: ignore[arg-type]


def test_both_sides_meet_the_same_macs_inside_blocks_alone(ours: Ours, measured: Measured) -> None:
    trial = of("l1", ratio=0.3, inner=True)
    found = ours.run(trial)
    other = incumbent.run(of("tp magnitude L1", ratio=0.3, inner=True), measured)
    assert found["original_macs"] == other["original_macs"]
    for record in (found, other):
        assert record["macs"] / record["original_macs"] == pytest.approx(0.7, abs=0.02)


@pytest.mark.parametrize("name", incumbent.IMPORTANCES)
def test_every_importance_of_the_incumbent_runs(name: str, measured: Measured) -> None:
    trial = Trial("selection", "small", f"tp {name}", ratio=0.3, samples=4, inner=True)
    assert incumbent.run(trial, measured)["macs"] > 0


def test_repair_brings_the_outputs_back(ours: Ours) -> None:
    found = {name: ours.run(of("reconstruction", name))["divergence"] for name in REPAIRS}
    assert found["least squares"] < found["none"]
    assert len(set(found.values())) == len(REPAIRS)


def test_draws_differ_and_come_back(measured: Measured) -> None:
    first, again, other = (drawn(measured.train, 40, draw) for draw in (0, 0, 1))
    assert torch.equal(first[0][0][0], again[0][0][0])
    assert not torch.equal(first[0][0][0], other[0][0][0])
    assert len(drawn(measured.train, 1000, 0)[1][1]) == 80 - 64


def test_a_second_run_goes_on_where_the_first_stopped(tmp_path: Path) -> None:
    file, (first, *rest) = tmp_path / "trials.jsonl", STUDIES["parts"][:3]
    append(file, first, {"top1": 50.0})
    file.write_text(file.read_text() + '{"trial": {"stu')
    assert {trial.key for trial in missing([first, *rest], file)} == {t.key for t in rest}
    assert list(read(file)) == [first.key]


def test_the_page_shows_mean_and_deviation_of_the_draws() -> None:
    records = [
        {
            "trial": vars(trial),
            "top1": 90.0 + trial.draw,
            "shows": "top1",
            "original": {"top1": 93.0},
            "seconds": {"score": 1.0, "slice": 1.0, "repair": 1.0},
        }
        for trials in STUDIES.values()
        for trial in trials
    ]
    page = to_markdown(records)
    assert "| 1.25× | 91.00 ± 1.00 | 91.00 ± 1.00 |" in page
    assert "| l2 | 90.00 | 91.00 ± 1.00 | 91.00 ± 1.00 | 91.00 ± 1.00 |" in page
    assert page.count("\n## ") == len(STUDIES)


def test_the_transformer_learns() -> None:
    torch.manual_seed(0)
    module = build()
    labels = torch.arange(64) % 2
    images = torch.randn(64, 3, 32, 32) * 0.1 + labels[:, None, None, None]
    train_(module, images, labels, minutes=0.1)
    with torch.no_grad():
        assert (module(images).argmax(1) == labels).double().mean() > 0.9
