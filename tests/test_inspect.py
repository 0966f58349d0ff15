"""`compress inspect`: groups and protections as tables and as JSON, and a second opinion."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch_pruning
from test_budgets import FileClock
from tiny import inputs, sequential, write_model
from torch import nn
from twin import analysed

import compressor
from compressor.cli import main
from compressor.latency.machine import machine_of, path_in_cache
from compressor.studies.inspect import macs_share
from compressor.studies.inspect.second_opinion import second_opinion

PRINTS = """
import torch

class Talkative(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = torch.nn.Linear(5, 8), torch.nn.Linear(8, 3)

    def forward(self, x):
        print("forward!")
        return self.b(self.a(x).relu())
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    write_model(tmp_path / "net.pt")


def test_tables_name_groups_and_what_is_protected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", "net.pt", "--input", "1x3x8x8"]) == 0
    shown = capsys.readouterr().out
    row = next(line for line in shown.splitlines() if "0.weight:0 " in line)
    assert [cell.strip() for cell in row.split("│")[1:-1]] == [
        *("0.weight:0", "channels", "0, 1, 3", "8", "87.3%"),
    ]
    for text in ("protected", "a model input", "0.weight:1", "a model output", "7.weight:0"):
        assert text in shown
    assert "kernel positions" not in shown
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.pt"]


def test_json_is_all_that_goes_to_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nets.py").write_text(PRINTS)
    assert main(["inspect", "nets.py:Talkative", "--json"]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert "forward!" in shown.err
    assert found["schema"] == 1
    assert found["model"]["weights"] == "as the factory made them"
    assert found["totals"] == {"macs": 8 * 5 + 8 * 3, "params": 8 * 6 + 3 * 9, "channels": 11}
    assert any("a guess" in note for note in found["notes"])
    assert found["second_opinion"] is None
    (group,) = found["groups"]
    assert group == {
        "name": "a.weight:0",
        "size": 8,
        "role": "channels",
        "macs_share": pytest.approx(7 / 8),
        "layers": ["a", "b"],
        "members": [
            {"tensor": "a.weight", "dim": 0, "contracted": False},
            {"tensor": "a.bias", "dim": 0, "contracted": False},
            {"tensor": "b.weight", "dim": 1, "contracted": True},
        ],
    }
    reasons = {p["reason"]: p["tensors"] for p in found["protected"]}
    assert reasons == {
        "a model input": ["a.weight:1"],
        "a model output": ["b.weight:0", "b.bias:0"],
    }


def test_the_share_is_what_goes_with_all_channels_but_one() -> None:
    network = analysed("residual").network
    by_name = {group.name: group for group in network.groups}
    stem, a, b = 64 * 9 * 3 * 8, 64 * 9 * 8 * 6, 64 * 9 * 6 * 8
    whole = stem + a + b + 8 * 4
    stream, inner = by_name["stem.weight:0"], by_name["a.weight:0"]
    assert macs_share(network, stream) == pytest.approx(1 - 1 / 8)
    assert macs_share(network, inner) == pytest.approx((a + b) * 5 / 6 / whole)


@pytest.mark.slow
def test_blocks_have_their_share_of_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    FileClock(monkeypatch)
    factory = f"{Path(__file__).parent / 'networks.py'}:CifarResNet"
    asked = ["inspect", factory, "--factory-arg", "depth=8", "--input", "1x3x8x8"]
    assert main([*asked, "--json"]) == 0
    untimed = json.loads(capsys.readouterr().out)
    assert "latency_ms" not in untimed["totals"]
    assert main([*asked, "--time", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["totals"]["latency_ms"] > 0
    shares = [block.pop("latency_share") for block in found["blocks"]]
    assert len(shares) == 3 and min(shares) > 0 and sum(shares) < 1
    assert found["blocks"] == untimed["blocks"]
    table = tmp_path / "table.json"
    shutil.copy(path_in_cache(machine_of(1, 1, "cpu")), table)
    assert main([*asked, "--latency-table", str(table)]) == 0
    shown = capsys.readouterr().out
    assert "of time" in shown and f"{shares[0]:.1%}" in shown
    assert main([*asked, "--latency-table", str(table), "--batch", "2"]) == 2
    assert "batch 1, not 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["missing.pt"], 2, "missing.pt"),
        (["net.pt", "--ratio", "0.5"], 2, "--ratio"),
        (["net.pt", "--input", "1x5x8x8"], 1, "does not accept"),
        ([], 2, "requires an argument"),
    ],
)
def test_what_cannot_be_inspected_is_said(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", *arguments, "--json"]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert said in shown.err
    assert "Traceback" not in shown.err


# -- the second opinion --------------------------------------------------------------------------


def opinion_on(name: str, **limits: float) -> dict[str, Any]:
    of = analysed(name)
    return second_opinion(of.trace, of.network, **limits)


def by_group(opinion: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {difference["group"]: difference for difference in opinion["differences"]}


@pytest.mark.parametrize("name", ["residual", "dense", "squeeze_excite", "unet", "tied_layers"])
def test_both_agree_but_for_the_outputs(name: str) -> None:
    opinion = opinion_on(name)
    assert opinion["failure"] == ""
    assert opinion["agree"] == len(analysed(name).network.groups)
    (outputs,) = opinion["differences"]
    assert not outputs["only_ours"]
    assert outputs["reasons"] == ["a model output"]


def test_a_coupling_that_it_misses_is_listed() -> None:
    """It takes the two halves of a channel shuffle for independent."""
    found = by_group(opinion_on("shuffle"))["a.weight:0"]
    assert found["only_ours"] == ["b.bias:0", "b.weight:0"]
    assert not found["only_theirs"]


def test_a_coupling_that_only_it_sees_is_listed() -> None:
    """It prunes queries and values together, which need not have one width."""
    found = by_group(opinion_on("separate_attention"))["q.weight:0 head_width"]
    assert found["only_theirs"] == ["out.weight:1", "v.bias:0", "v.weight:0"]
    assert not found["only_ours"]


def test_a_network_that_it_cannot_read_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    factory = f"{Path(__file__).parent / 'networks.py'}:GroupedQuery"
    assert main(["inspect", factory, "--input", "2x7x5", "--second-opinion"]) == 0
    shown = capsys.readouterr()
    assert "fails on this network: TypeError" in shown.err.replace("\n", " ")
    assert "differs" not in shown.out
    assert "head_width" in shown.out


def test_it_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(*args: Any, **kwargs: Any) -> None:
        while True:
            time.sleep(0.01)

    monkeypatch.setattr(torch_pruning.DependencyGraph, "build_dependency", endless)
    begin = time.perf_counter()
    opinion = opinion_on("mlp", seconds=0.2)
    assert time.perf_counter() - begin < 5
    assert "no answer after 0.2 seconds" in opinion["failure"]
    assert opinion["differences"] == []


def test_a_program_has_no_layers_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compressor.save(sequential(), inputs(2), tmp_path / "program.pt2")
    assert main(["inspect", "program.pt2", "--json", "--second-opinion"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [group["size"] for group in found["groups"]] == [8, 12]
    assert "no layer" in found["second_opinion"]["failure"]


def test_the_second_opinion_changes_nothing() -> None:
    of = analysed("residual")
    state = {name: tensor.clone() for name, tensor in of.trace.module.state_dict().items()}
    second_opinion(of.trace, of.network)
    assert all(not p.requires_grad for p in of.trace.module.parameters())
    assert all(tensor.equal(state[n]) for n, tensor in of.trace.module.state_dict().items())
    assert isinstance(of.trace.module, nn.Module)
    assert not of.trace.module.training


UNCOUNTED = """
import torch

class Spectral(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (torch.nn.Linear(8, 8) for _ in range(3))

    def forward(self, x):
        self.c(x)
        return self.b(torch.fft.fft(self.a(x)).real)
"""


def test_what_is_not_counted_or_not_read_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nets.py").write_text(UNCOUNTED)
    assert main(["inspect", "nets.py:Spectral", "--input", "1x8", "--json"]) == 0
    notes = "\n".join(json.loads(capsys.readouterr().out)["notes"])
    assert "not counted in the MACs, having no formula: fft_fft.default (1 call" in notes
    assert "thrown away: no output of an evaluation depends on c;" in notes
