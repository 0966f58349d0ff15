"""What operators without a rule cost: two tiny networks, the records and the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tools.operators.__main__ as command
from compressor.graph.rules import RULES
from compressor.records import ExampleInputs
from tools.jsonl import append_line
from tools.operators.collecting import Unruled, unruled
from tools.operators.table import to_markdown
from tools.zoo.members import Subject
from tools.zoo.runner import circumstances, read


class Turned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).erf().erf())


def test_a_rule_that_is_wanted_costs_what_it_protects() -> None:
    subject = Subject(Turned().eval(), ExampleInputs((torch.randn(2, 4),)))
    assert unruled(subject) == {}
    without = {name: rule for name, rule in RULES.items() if name != "erf.default"}
    # eight rows and their biases before it; after the second, eight columns
    assert unruled(subject, without) == {"erf.default": Unruled(2, 3, 24)}


def test_known_models_are_not_run_again_and_all_stand_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def found(job: Any, *_: Any) -> dict[str, Any]:
        ran.append(job.name)
        wanting = {"odd.default": {"calls": 2, "dimensions": 3, "positions": 24}}
        what = wanting if job.name == "squeezenet1_1" else {}
        return {"zoo": job.zoo, "name": job.name, "status": "ran", "operators": what} | (
            circumstances()
        )

    monkeypatch.setattr(command, "run_forked", found)
    out, page = tmp_path / "records.jsonl", tmp_path / "page.md"
    for _ in range(2):
        command.run(only=("torchvision",), name="squeezenet*", out=out, page=page, scratch=tmp_path)
    assert ran == ["squeezenet1_1", "squeezenet1_0"]  # the smaller one first
    assert "| torchvision | 2 of 2 | 1 |" in page.read_text()
    assert "| `odd.default` | 1 | 2 | 3 | 24 |  | squeezenet1_1 |" in page.read_text()
    append_line(
        out, {"zoo": "torchvision", "name": "quantised", "status": "skipped", "reason": "why"}
    )
    assert "| torchvision | quantised | why |" in to_markdown(
        [record | circumstances() for record in read(out).values()]
    )
