"""Positions that a mask calls padding count in nothing: no moment, no loss, no fidelity."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import compressor
from compressor.calls import Call
from compressor.graph.analysis import analyse
from compressor.graph.trace import trace
from compressor.loading.data import Binding, Forward
from compressor.padding import counted_of, counted_rows
from compressor.records import ExampleInputs
from compressor.recover import (
    USUAL,
    BesideOriginal,
    Distance,
    cross_entropy,
    fidelity,
    measure_nearness,
)
from compressor.run import footprints
from compressor.score import Calibration
from compressor.score.data import WithoutPadding
from tests.scoring import score

LENGTH, SYMBOLS = 6, 12


class Tokens(nn.Module):
    """Each position by itself: [samples, positions] -> [samples, positions, 5]."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(SYMBOLS, 8)
        self.up, self.down, self.out = nn.Linear(8, 24), nn.Linear(24, 8), nn.Linear(8, 5)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.embed(input_ids) + 0 * attention_mask.unsqueeze(2)
        return self.out(x + self.down(self.up(x).relu()))


class Padded(Dataset[Any]):
    """Half of the positions are padding, and hold one symbol that nothing else does."""

    def __init__(self, filler: int, *, by_name: bool = True) -> None:
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(SYMBOLS - 2, (80, LENGTH), generator=generator)
        self.mask = (torch.rand(80, LENGTH, generator=generator) < 0.5).long()
        self.ids, self.by_name = ids.where(self.mask.bool(), filler), by_name

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i: int) -> tuple[Any, None]:
        ids, mask = self.ids[i], self.mask[i]
        return ({"input_ids": ids, "attention_mask": mask} if self.by_name else (ids, mask)), None


# -- which inputs are masks ------------------------------------------------------------------------


MASK = torch.tensor([[1, 1, 0], [1, 0, 0]])


@pytest.mark.parametrize(
    ("call", "counted"),
    [
        (Call((), {"attention_mask": MASK}), MASK.bool()),
        (Call((MASK, MASK), names=("input_ids", "attention_mask")), MASK.bool()),
        (Call(({"input_ids": MASK, "attention_mask": MASK},)), MASK.bool()),
        (Call((), {"src_key_padding_mask": MASK == 0}), MASK.bool()),
        (Call((MASK, MASK)), None),
        (Call((), {"token_type_ids": MASK}), None),
        (Call((), {"attention_mask": torch.where(MASK == 1, 0.0, -1e9)}), None),
        (Call((), {"attention_mask": MASK[:, None].expand(2, 3, 3)}), None),
    ],
)
def test_masks_are_known_by_name(call: Call, counted: Tensor | None) -> None:
    found = counted_of(call)
    assert (found is None) == (counted is None)
    assert found is None or torch.equal(found, counted)


def test_inputs_by_position_have_the_names_of_the_forward() -> None:
    for binding in (
        Binding(Forward.of(Tokens())),
        Binding(Forward.of(Tokens()), Call((MASK,) * 2)),
    ):
        call = binding((MASK, MASK)).map(lambda x: x)
        assert call.kwargs == {} and torch.equal(counted_of(call), MASK.bool())


def test_rows_of_padded_positions_are_left_out() -> None:
    counted = MASK.bool()
    assert counted_rows((2, 3), counted).tolist() == [0, 1, 3]
    assert counted_rows((6,), counted).tolist() == [0, 1, 3]
    assert counted_rows((2, 3, 2), counted).tolist() == [0, 1, 2, 3, 6, 7]
    assert counted_rows((2,), counted) is None
    assert counted_rows((2, 3), torch.ones(2, 3, dtype=torch.bool)) is None


# -- scores ----------------------------------------------------------------------------------------

CRITERIA = ("activation", "wanda", "flap", "gradient", "taylor", "taylor-elementwise", "fisher")


class Attending(nn.Module):
    """A layer of attention and one of its own, (N, L) -> (N, L, 5); padded keys are not seen."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.out = nn.Embedding(SYMBOLS, 8), nn.Linear(8, 5)
        self.up, self.down = nn.Linear(8, 24), nn.Linear(24, 8)
        self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.embed(input_ids)
        scores = self.query(x) @ self.key(x).transpose(1, 2)
        hidden = attention_mask[:, None, :] == 0
        x = x + scores.masked_fill(hidden, -1e9).softmax(2) @ self.value(x)
        y: Tensor = self.out(x + self.down(self.up(x).relu()))
        return y.transpose(1, 2)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_scores_with_padding_are_those_of_the_same_windows_without(criterion: str) -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(SYMBOLS, (3, 4, LENGTH), generator=generator)
    labels = torch.randint(5, (3, 4, LENGTH), generator=generator)
    found = []
    for more in (0, 3):
        padded, target = (nn.functional.pad(x, (0, more), value=1) for x in (ids, labels))
        mask = nn.functional.pad(torch.ones_like(ids), (0, more))
        parts = zip(padded, mask, target, strict=True)
        batches = [(Call((x, m), names=("input_ids", "attention_mask")), y) for x, m, y in parts]
        module = Attending().eval()
        traced = trace(module, ExampleInputs((padded[0], mask[0])))
        loss = partial(cross_entropy, task=USUAL)
        calibration = Calibration(traced, WithoutPadding(batches), loss)
        tensors = dict(module.named_parameters())
        found.append(score(analyse(traced), tensors, criterion, calibration=calibration))
    without, with_padding = found
    assert without.keys() == with_padding.keys() and without
    for name in without:
        assert with_padding[name] == pytest.approx(without[name], rel=1e-3, abs=1e-5)


# -- what they do not count in ---------------------------------------------------------------------


def test_what_stands_at_padded_positions_changes_no_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chosen, re-fitted, trained and judged alike, whatever fills the padding."""
    monkeypatch.setattr(footprints, "LATENCY_SECONDS", 0.05)
    settings = {"ratio": 0.5, "round_to": 1, "epochs": 1, "batch_size": 16, "format": ("pt2",)}
    found = []
    for filler, by_name in ((SYMBOLS - 2, True), (SYMBOLS - 1, False)):
        data = Padded(filler, by_name=by_name)
        example = {"input_ids": data.ids[:2], "attention_mask": data.mask[:2]}
        given = example if by_name else tuple(example.values())
        found.append(compressor.compress(Tokens(), given, data=data, **settings))
    one, other = (result.module.state_dict() for result in found)
    fillers = (SYMBOLS - 2, SYMBOLS - 1)
    real = [i for i in range(SYMBOLS) if i not in fillers]
    for name, tensor in one.items():
        rows = real if name == "embed.weight" else slice(None)
        torch.testing.assert_close(tensor[rows], other[name][rows], msg=name)
    metrics = [[row["metrics"] for row in result.report["recovery"]] for result in found]
    for a, b in zip(*metrics, strict=True):
        assert a == pytest.approx(b)
    assert found[0].report["fidelity"]["outputs"][0]["relative_error"] == pytest.approx(
        found[1].report["fidelity"]["outputs"][0]["relative_error"]
    )


def test_distance_and_fidelity_are_those_of_the_other_positions() -> None:
    torch.manual_seed(0)
    counted = MASK.bool()
    ours, theirs = torch.randn(2, 2, 3, 4).unbind()
    labels = torch.zeros(2, 3, dtype=torch.long)
    distance = Distance({0: 2.0})
    for classes in (None, labels):
        flat = None if classes is None else labels[counted]
        wanted = distance(ours[counted], theirs[counted], flat)
        torch.testing.assert_close(distance(ours, theirs, classes, counted), wanted)

    class Fixed(nn.Module):
        def __init__(self, values: Tensor) -> None:
            super().__init__()
            self.values = values

        def forward(self, attention_mask: Tensor) -> Tensor:
            return self.values

    batch = [(Call((), {"attention_mask": MASK}), None)]
    (found,) = measure_nearness(Fixed(ours), batch, Fixed(theirs))
    other = ours.where(counted.unsqueeze(2), 7.0)
    assert measure_nearness(Fixed(other), batch, Fixed(theirs)) == [found]
    ((_, wanted_outputs),) = BesideOriginal(batch, Fixed(theirs), "cpu")
    assert fidelity(other, wanted_outputs) == pytest.approx(found.cosine)
    errors = (ours - theirs)[counted].square().sum()
    spread = (theirs[counted] - theirs[counted].mean(0)).square().sum()
    assert found.relative_error == pytest.approx(float((errors / spread) ** 0.5))


class Encoded(nn.Module):
    """PyTorch's own encoder, whose fused form hands on tensors without shapes when it is masked."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
        self.embed, self.encoder = nn.Embedding(SYMBOLS, 16), nn.TransformerEncoder(layer, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x: Tensor = self.embed(input_ids)
        return self.encoder(x, src_key_padding_mask=attention_mask == 0)


class LeftAligned(Padded):
    """Real positions first, as the fused form wants them."""

    def __init__(self) -> None:
        super().__init__(SYMBOLS - 1)
        self.mask = self.mask.sort(1, descending=True).values
        self.mask[:, 0] = 1


def test_a_masked_encoder_becomes_smaller_and_runs_as_users_call_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(footprints, "LATENCY_SECONDS", 0.05)
    data = LeftAligned()
    settings = {"ratio": 0.4, "round_to": 1, "batch_size": 16, "format": ("pt2",)}
    result = compressor.compress(Encoded(), data=data, **settings)
    assert result.report["form"]["form"] == "class"
    assert result.report["recovery"][-1]["metrics"]["fidelity"] > 0.8
    given = {"input_ids": data.ids[:5], "attention_mask": data.mask[:5]}
    with torch.no_grad():
        found, wanted = result.module.eval()(**given), result.program.module()(**given)
    counted = given["attention_mask"].bool()
    torch.testing.assert_close(found[counted], wanted[counted], rtol=1e-4, atol=1e-5)
