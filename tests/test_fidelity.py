"""How near outputs are to the original's: without labels, as a metric and in every report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TinyNet, compress, inputs
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import compressor
from compressor import double_precision
from compressor.calls import Call
from compressor.errors import CompressorError
from compressor.recover import Measure, fidelity, measure_nearness
from compressor.recover.tasks import USUAL
from compressor.report.headline import headline


class Two(nn.Module):
    """Scores, an index that is no floating tensor, and an embedding."""

    def __init__(self, turn: float = 1.0) -> None:
        super().__init__()
        self.turn = turn

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"scores": self.turn * x, "best": x.argmax(1), "embedding": x[:, :2] + 1}


def given(samples: int = 40) -> list[tuple[Call, Any]]:
    torch.manual_seed(0)
    return [(Call((torch.randn(samples, 4),)), None) for _ in range(2)]


@pytest.mark.parametrize(("factor", "value"), [(1.0, 1.0), (3.0, 1.0), (-1.0, -1.0), (0.0, 0.0)])
def test_fidelity_is_the_cosine_of_each_sample(factor: float, value: float) -> None:
    x = torch.randn(8, 3, 5)
    assert fidelity(factor * x, x) == pytest.approx(value, abs=1e-6)
    assert fidelity((factor * x, x), (x, x)) == pytest.approx((1 + value) / 2, abs=1e-6)


def test_nothing_is_like_nothing() -> None:
    assert fidelity(torch.zeros(2, 3), torch.zeros(2, 3)) == 1


def test_outputs_of_other_shapes_are_refused() -> None:
    with pytest.raises(CompressorError, match="cannot be compared"):
        fidelity(torch.zeros(2, 3), torch.zeros(2, 4))


def test_each_floating_output_is_compared() -> None:
    scores, embedding = measure_nearness(Two(-1.0), given(), Two())
    assert (scores.output, embedding.output) == (0, 2)
    assert scores.cosine == pytest.approx(-1)
    assert scores.same_argmax == 0
    assert scores.relative_error == pytest.approx(2, rel=0.05)  # the mean of the scores is near 0
    assert (embedding.cosine, embedding.relative_error, embedding.same_argmax) == (1, 0, 1)


def test_what_returns_the_mean_errs_by_one() -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean(0, keepdim=True).expand_as(x)

    samples = given()[:1]
    (found,) = measure_nearness(Mean(), samples, nn.Identity())
    assert found.relative_error == pytest.approx(1)


def test_large_outputs_are_looked_at_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measure_nearness(Two(0.3), given(30), Two())
    monkeypatch.setattr(double_precision, "ENTRIES", 50)
    parted = measure_nearness(Two(0.3), given(30), Two())
    for one, other in zip(whole, parted, strict=True):
        assert vars(one) == pytest.approx(vars(other), rel=1e-12)


class Unlabelled(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 60

    def __getitem__(self, i: int) -> tuple[Tensor, None]:
        return inputs(60)[i], None


def test_without_labels_fidelity_is_the_metric(tmp_path: Path) -> None:
    found = compress(TinyNet(16), inputs(), data=Unlabelled(), ratio=0.5, round_to=1)
    rows = [step["metrics"] for step in found.report["recovery"]]
    assert [list(row) for row in rows] == [["fidelity"]] * 3
    original, sliced, repaired = (row["fidelity"] for row in rows)
    assert original == pytest.approx(1)
    assert sliced < repaired < 1
    (output,) = found.report["fidelity"]["outputs"]
    assert output["cosine"] == pytest.approx(repaired, abs=1e-6)
    assert found.report["fidelity"]["samples"] == 6
    found.save(tmp_path / "result")
    text = (tmp_path / "result" / "report.md").read_text()
    assert f"{repaired:.4f}" in text and "against the original's outputs" in text
    lines = headline(found.report)
    assert [line.title for line in lines] == ["smaller", "faster", "fidelity"]


def test_the_original_is_its_own_answer() -> None:
    """It is run once for each batch, not once more beside itself."""

    class Counting(nn.Module):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x.tanh()

    original, other = Counting(), Counting()
    measure = Measure.named("fidelity", USUAL)
    assert measure.all_of(original, given(), original=original) == {"fidelity": 1}
    assert original.calls == len(given())
    measure.all_of(other, given(), original=original)
    assert original.calls == 2 * len(given()) and other.calls == len(given())


def test_with_labels_it_stands_beside_the_accuracy() -> None:
    data = TensorDataset(inputs(64), torch.arange(64) % 4)
    found = compress(TinyNet(16), inputs(), data=data, test=data, ratio=0.5, round_to=1)
    assert set(found.report["after"]["metrics"]) == {"top1"}
    (output,) = found.report["fidelity"]["outputs"]
    assert output["output"] == "output" and 0.5 < output["cosine"] < 1
    assert 0 < output["relative_error"] < 1 and 0.5 < output["same_argmax"] <= 1
    assert [line.title for line in headline(found.report)][2:] == ["accuracy", "fidelity"]


def test_a_network_falls_no_further_without_labels() -> None:
    found = compress(TinyNet(16), inputs(), data=Unlabelled(), max_drop=2.0, round_to=1)
    floor = found.report["budget"]["accuracy_floor"]
    assert floor["whole"] == pytest.approx(1)
    assert any(trial["is_within"] for trial in floor["trials"])
    assert all(trial["metric"] >= 0.98 for trial in floor["trials"] if trial["is_within"])


def test_it_can_be_asked_for_where_there_are_labels() -> None:
    data = TensorDataset(inputs(64), torch.arange(64) % 4)
    found = compressor.compress(
        *(TinyNet(16), inputs()), data=data, metric="fidelity", ratio=0.3, format=("pt2",)
    )
    assert list(found.report["before"]["metrics"].values()) == [pytest.approx(1)]


def share_right(outputs: Tensor, target: Tensor) -> float:
    """A metric of one's own, which needs labels."""
    return float((outputs.argmax(1) == target).float().mean())


def test_a_metric_that_fails_is_told_before_anything_long() -> None:
    with pytest.raises(CompressorError, match="the metric failed") as refused:
        compress(TinyNet(16), inputs(), data=Unlabelled(), metric=share_right, ratio=0.3)
    assert "no labels" in str(refused.value.where)
    assert refused.value.consequence == "nothing was done"
