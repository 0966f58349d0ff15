"""Networks on which a comparison says little: masked outputs, tiny ones, ones that noise leaves
cold."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from twin import random_keep

from compressor.calls import Call
from compressor.errors import CompressorError
from compressor.formats import export_onnx
from compressor.formats.verifying import verify_file
from compressor.graph.analysis import analyse
from compressor.graph.programs import redraw
from compressor.graph.trace import trace
from compressor.records import ExampleInputs
from compressor.slicing import compare, slice_network


class Policy(nn.Module):
    """Its moves' logits, illegal ones at a constant; their factor depends on a width."""

    def __init__(self, fill: float) -> None:
        super().__init__()
        self.fill, self.hidden, self.moves = fill, nn.Linear(10, 24), nn.Linear(24, 6)

    def forward(self, x: Tensor, legal: Tensor) -> Tensor:
        hidden = self.hidden(x).relu()
        return self.moves(hidden * hidden.shape[-1] ** -0.5).masked_fill(legal == 0, self.fill)


@pytest.mark.parametrize("fill", [-1e9, -math.inf])
def test_a_class_that_differs_in_legal_moves_alone_is_not_delivered(fill: float) -> None:
    torch.manual_seed(0)
    legal = (torch.rand(4, 6) < 0.6).long().index_fill(1, torch.tensor(0), 1)
    traced = trace(Policy(fill).eval(), ExampleInputs((torch.randn(4, 10), legal)))
    network = analyse(traced)
    found = slice_network(traced, network, random_keep(network, seed=0))
    assert found.plan.form == "program"
    assert "output 0 at [" in found.plan.obstacle
    assert compare(found, traced) == 0


class Detector(nn.Module):
    """Probabilities of text at each pixel: next to none on noise, `bias` being what they begin
    from; with `dead`, only bright images show anything at all."""

    def __init__(self, bias: float, dead: float = 0.0) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 1)
        self.bias, self.dead = nn.Parameter(torch.tensor(float(bias))), dead

    def forward(self, image: Tensor) -> Tensor:
        seen = (image - self.dead).relu() if self.dead else image
        return (self.last(self.first(seen).relu()) + self.bias).sigmoid()


def written(model: nn.Module, folder: Path, image: Tensor, real: Tensor | None = None) -> float:
    torch.manual_seed(0)
    traced = trace(model.eval(), ExampleInputs((image,)))
    path = folder / "m.onnx"
    export_onnx(traced.program, path, batch_symbol=traced.batch_symbol)
    given = None if real is None else Call((real,))
    return verify_file(traced.program, path, traced, real=given)


def test_tiny_outputs_are_compared_on_their_own_scale(tmp_path: Path) -> None:
    torch.manual_seed(0)
    assert written(Detector(-16), tmp_path, torch.randn(1, 1, 8, 8)) < 1e-4


class Chaotic(nn.Module):
    """Forty layers, of which each sets near values further apart, and a head of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(40))
        self.head = nn.Linear(16, 8)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.sin(1.5 * layer(x))
        return self.head(x)


@pytest.mark.slow
def test_weights_drawn_anew_leave_rounding_no_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    assert written(Chaotic(), tmp_path, x) < 1e-4
    monkeypatch.setattr(redraw, "GAINS", ())
    with pytest.raises(CompressorError, match="differ by"):
        written(Chaotic(), tmp_path, x)


def test_data_decide_where_noise_shows_nothing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    noise, bright = torch.rand(1, 1, 8, 8), 3 + torch.rand(3, 1, 8, 8)
    model = Detector(0, dead=2)
    assert written(model, tmp_path, noise, bright) < 1e-4
    with pytest.raises(CompressorError, match=r"equal for different inputs[\s\S]*--data"):
        written(model, tmp_path, noise)


class Answers(nn.Module):
    """A small network, and what becomes of its scores."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 4)
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.second(self.first(x).relu()))


def test_complex_outputs_are_compared_as_pairs(tmp_path: Path) -> None:
    assert written(Answers(lambda y: torch.complex(y, -y)), tmp_path, torch.randn(2, 6)) < 1e-4


def test_a_decision_that_never_changes_is_compared_under_weights_that_change_it(
    tmp_path: Path,
) -> None:
    model = Answers(lambda y: y.argmax(1))
    with torch.no_grad():
        model.second.bias[0] += 99
    assert written(model, tmp_path, torch.randn(2, 6)) == 0


def test_outputs_that_can_only_be_constant_are_said_to_show_nothing() -> None:
    notes: list[str] = []
    traced = trace(Answers(lambda y: y * 0).eval(), ExampleInputs((torch.randn(2, 6),)))
    network = analyse(traced)
    compare(slice_network(traced, network, random_keep(network, 0)), traced, notes.append)
    assert len(notes) == 1
    assert "nothing shows" in notes[0]
