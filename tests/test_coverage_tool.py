"""Both tools on small networks of a zoo, beside their masked twins; the part of the page."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.records import ExampleInputs
from tools.studies import coverage
from tools.studies.coverage import compare
from tools.studies.coverage_table import ahead, to_markdown
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
    return compare(lambda: subject, lambda record: told.append(dict(record)))


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


def member(name: str, **tools: dict[str, Any]) -> dict[str, Any]:
    run = {"machine": "x", "threads": "1", "date": "today", "versions": {"torch": "2"}}
    return {"zoo": "timm", "name": name, **tools, **run}


def test_the_page_has_totals_reasons_and_where_the_other_is_ahead() -> None:
    fine = {"status": "passed", "analyse_s": 1.0, "slice_s": 2.0, "twin": 0.0, "removed": 0.5}
    quick = {**fine, "analyse_s": 0.1, "slice_s": 0.1}
    bad = {"status": "failed", "error": {"kind": "KeyError", "first_line": "a|b", "where": ""}}
    members = [
        member("both", ours=fine, torch_pruning=quick),
        member("one", ours=fine, torch_pruning=bad),
        member("other", ours=bad, torch_pruning=quick),
        member("none", error={"kind": "Ended"}),
    ]
    page = to_markdown(members)
    assert "| timm | 3 | 2 | 2 | 1 | 1 |" in page
    assert "| timm | one | KeyError: a\\|b |" in page
    assert "Ended before either was done: timm/none." in page
    assert list(ahead(members)) == [
        "analysis takes 0.10 s and not 1.00 s (median).",
        "slicing takes 0.10 s and not 2.00 s (median).",
        "it alone passes on timm/other.",
    ]
    assert to_markdown([]).startswith("Open:")
