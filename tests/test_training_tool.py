"""The training study's runner end to end on one small network, its file and its page."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tools.cifar_resnet import CifarResNet
from tools.training import methods, own
from tools.training.data import Cifar, Images, Unseen
from tools.training.kept import Kept
from tools.training.methods import METHODS
from tools.training.run import Remembered, Runner
from tools.training.studies import STUDIES
from tools.training.table import to_markdown
from tools.training.trial import Trial, append, read


class Small(Cifar):
    """Random images in CIFAR-10's place, and a network that knows nothing of them."""

    @property
    def _shuffled(self) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        return torch.randn(5160, 3, 32, 32), torch.arange(5160) % 10

    @property
    def _test(self) -> tuple[Tensor, Tensor]:
        images, labels = self._shuffled
        return images[:50], labels[:50]

    def validation(self, module: nn.Module) -> float:
        return self.test(module)

    def network(self, name: str) -> nn.Module:
        torch.manual_seed(0)
        return CifarResNet(8).eval()


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(Small(tmp_path, "cpu"), tmp_path / "unfinished")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_meets_the_macs_and_is_trained(
    runner: Runner, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "SPARSE_EPOCHS", 1)
    found = runner.run(Trial("cpu", "ResNet-20", method, 1.5, 1))
    close = 0.08 if method == "ours in steps of 8" else 0.02
    assert found["macs"] / found["base_macs"] == pytest.approx(1 / 1.5, abs=close)
    assert found["params"] < found["base_params"]
    assert len(found["epochs"]) == 1
    assert 0 <= found["tuned"] <= 100
    assert ("repaired" in found) == (method.startswith("ours"))


def test_a_trial_that_was_stopped_goes_on(runner: Runner, tmp_path: Path) -> None:
    trial = Trial("cpu", "ResNet-20", "uniform L1", 1.5, 2)
    whole = runner.run(trial)
    keep = Kept.keep
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Kept, "keep", lambda *given: (keep(*given), 1 / 0)[1])
        with pytest.raises(ZeroDivisionError):
            runner.run(trial)
    assert runner.kept.state(trial.file).epoch == 1
    again = runner.run(trial)
    assert runner.kept.state(trial.file) is None
    losses = [[epoch["loss"] for epoch in found["epochs"]] for found in (whole, again)]
    assert losses[0] == losses[1]


def test_the_original_is_asked_once_about_a_batch() -> None:
    asked: list[int] = []

    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            asked.append(len(x))
            return 2 * x

    teacher, x = Remembered(Counting()), torch.randn(2, 3)
    for images in (x, x.clone(), -x):
        assert torch.equal(teacher(images), 2 * images)
    assert len(asked) == 2


def test_the_split_is_whole_and_disjoint(tmp_path: Path) -> None:
    data = Small(tmp_path, "cpu")
    whole, _ = data._shuffled
    assert isinstance(data.train, Images)
    assert len(data.train) + 5000 == len(whole)
    assert torch.equal(torch.cat([whole[:5000], data.train.images]), whole)


def test_a_default_is_decided_by_images_that_no_network_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SmallUnseen(Unseen):
        _shuffled = Small._shuffled

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(own, "EPOCHS", 2)
    monkeypatch.setattr(own, "CifarResNet", lambda depth: CifarResNet(8))
    data = SmallUnseen(tmp_path / "nowhere", "cpu")
    once, again = data.network("ResNet-20"), data.network("ResNet-20")
    for one, other in zip(once.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    images, labels = data._shuffled
    right = (once(images[:5000]).argmax(1) == labels[:5000]).double().mean()
    assert data.test(once) == pytest.approx(100 * float(right))


def record(trial: Trial) -> dict:
    if not trial.method:
        times = {"batch": 1, "original_ms": 2.0, "noise": 0.01}
        names = {t.method for t in STUDIES[trial.study] if t.method}
        return {
            "times": [{**times, "share": dict.fromkeys(names, 0.5)}],
            "where": {"device": "x", "threads": 1, "torch": "2", "date": "today"},
        }
    return {
        "base": 93.0,
        "sliced": 10.0,
        "tuned": 90.0 + trial.seed,
        "best": 90.0,
        "macs": 50,
        "base_macs": 100,
        "params": 60,
        "base_params": 100,
        "where": {"device": "x", "threads": 1, "torch": "2", "date": "today"},
    }


def test_the_page_has_a_row_per_method_and_says_what_is_open(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    for trial in STUDIES["cpu"]:
        append(file, trial, record(trial))
    page = to_markdown(list(read(file).values()))
    row = next(line for line in page.splitlines() if "| ours |" in line)
    assert "| 3 | 5 | 93.00 | 10.00 |  | **91.00 ± 1.00** | -2.00 |" in row
    assert "Open: `python -m tools.training" in page
