"""Detectors: the sizes of what comes last are decided by data; their beginning is a program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from cases import Case
from torch import Tensor, nn
from twin import Analysed, analysed_case, assert_smaller, live, masked_twin, outputs, sliced
from zoo_member import net

import compressor
from compressor.errors import CompressorError
from compressor.graph.programs.beginning import end_after, note_calls

NOISE = (6, 5)


def of_proposals(m: Any, features: Tensor) -> Tensor:
    scores, boxes = m.head(features)
    chosen = boxes[scores > 0]
    if chosen.numel() == 0:
        return chosen
    return chosen[chosen.norm(dim=1).argsort()]


def of_head(m: Any, features: Tensor) -> tuple[Tensor, Tensor]:
    hidden = m.first(features).relu()
    return m.score(hidden).squeeze(-1), m.box(hidden)


def of_detector(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    features = m.body(x)
    boxes = m.proposals(features)
    return boxes, m.classes(boxes)


def detector() -> nn.Module:
    """Rows of features, from which proposals are chosen, which alone are classified."""
    head = net(of_head, first=nn.Linear(8, 7), score=nn.Linear(7, 1), box=nn.Linear(7, 4))
    return net(
        of_detector,
        body=nn.Sequential(nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 8)),
        proposals=net(of_proposals, head=head),
        classes=nn.Linear(4, 3),
    )


@pytest.fixture(scope="module")
def analysed() -> Analysed:
    return analysed_case(Case(detector, NOISE))


KEEP = {"body.0.weight:0": (0, 2, 3, 8), "proposals.head.first.weight:0": (1, 2, 6)}


def test_the_program_ends_where_data_decide(analysed: Analysed) -> None:
    found = analysed.trace
    assert found.ends_after == ("body", "proposals.head")
    assert found.batch_symbol
    assert any("body, proposals.head" in note for note in found.notes)
    assert [g.name for g in analysed.network.groups] == list(KEEP)
    kept = {where for p in analysed.network.protections for where in p.tensors}
    assert {"classes.weight:0", "classes.weight:1"} <= kept


def test_the_whole_class_is_delivered_and_computes_like_its_twin(analysed: Analysed) -> None:
    found = sliced(analysed, KEEP)
    assert found.plan.form == "class"
    assert_smaller(found, analysed, KEEP)
    twin = masked_twin(analysed, KEEP)
    for seed in (1, 2):
        inputs = analysed.case.inputs(3, seed)
        expected = outputs(twin, *inputs)
        assert 0 < len(expected[0]) < 18, "some rows are chosen, not all"
        for a, b in zip(expected, outputs(found.module, *inputs), strict=True):
            torch.testing.assert_close(a, b)


def test_a_class_that_computes_something_else_is_told_apart(analysed: Analysed) -> None:
    found = sliced(analysed, KEEP)
    head = found.module.get_submodule("proposals.head.box")
    head.weight = nn.Parameter(head.weight.detach() + 1)  # its own: the program shares memory
    with pytest.raises(CompressorError, match="compute different outputs"):
        compressor.slicing.compare(found, analysed.trace)


def test_the_beginning_of_a_forward_is_what_the_calls_return() -> None:
    model = live(detector())
    x = torch.randn(2, *NOISE, dtype=torch.float64)
    calls: list[str] = []
    with torch.no_grad(), note_calls(model, calls):
        whole = model(x)
    assert calls == ["body", "proposals", "classes"]
    features = model.body(x)
    with end_after(model, ["body", "proposals.head"]):
        begun = outputs(model, x)
    scores, boxes = model.proposals.head(features)
    for a, b in zip(begun, (features, scores, boxes), strict=True):
        torch.testing.assert_close(a, b)
    for a, b in zip(outputs(model, x), whole, strict=True):
        assert torch.equal(a, b)
    assert not any("forward" in vars(layer) for layer in model.modules())


def test_nothing_of_a_failed_capture_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    analysed_case(Case(detector, NOISE))
    assert capfd.readouterr() == ("", "")


def test_half_a_network_is_not_saved_as_a_whole(tmp_path: Path) -> None:
    with pytest.raises(CompressorError, match="cannot be exported whole"):
        compressor.save(live(detector()).float(), torch.randn(2, *NOISE), tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


def test_the_report_counts_what_does_not_depend_on_what_is_found() -> None:
    result = compressor.compress(live(detector()).float(), torch.randn(2, *NOISE), 0.3)
    beginning = 6 * (5 * 9 + 9 * 8 + 8 * 7 + 7 * 1 + 7 * 4)
    assert result.report["before"]["macs"] == beginning
    assert result.report["after"]["macs"] <= 0.75 * beginning
    assert result.plan.form == "class"
    assert any("sizes that data decide" in note for note in result.report["notes"])
