"""Latency as OpenVINO has it: its layers' times, a budget met on its clock."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from deployed import Convolutions, halved, pixels
from torch import nn

from compressor import compress
from compressor.errors import CompressorError
from compressor.files.format_table import OPENVINO
from compressor.latency import Case, Setting, measure_table, read_table
from compressor.latency.kernels import KERNELS
from compressor.latency.machine import path_in_cache
from compressor.latency.openvino_bench import OpenVinoBench

pytest.importorskip("openvino", reason="the extra openvino is not installed")


def test_openvino_takes_longer_for_more() -> None:
    matrix = {"matrix": True, "bias": True, "then": ()}
    wide, narrow = (
        Case("linear", {"rows": 1024, "in": width, "out": width}, matrix) for width in (512, 64)
    )
    times = OpenVinoBench().times_ms([wide, narrow])
    assert times[0] > times[1]
    with pytest.raises(CompressorError, match="OpenVINO could not run a layer on its own"):
        OpenVinoBench().times_ms([Case("linear", {"rows": 1, "in": 0, "out": 1}, {"op": "?"})])


def test_every_kind_with_steps_runs_in_openvino() -> None:
    stepped = {kind: kernel for kind, kernel in KERNELS.items() if kernel.stepped}
    cases = [Case(kind, *kernel.probe) for kind, kernel in stepped.items()]
    assert len(cases) > 3 and min(OpenVinoBench(seconds=0.001).times_ms(cases)) > 0


@pytest.mark.slow
def test_a_share_of_its_time_is_met_on_its_clock(tmp_path: Path) -> None:
    """Layers, steps and both networks are timed by OpenVINO; the result is written for it."""
    torch.manual_seed(0)
    module = nn.Sequential(
        *(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 128, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(128, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 256, 10)),
    )
    x = torch.randn(1, 3, 16, 16)
    result = compress(module.eval(), x, 0.5, of="latency", latency_on=OPENVINO, criterion="l2")
    result.save(tmp_path / "result")
    assert (tmp_path / "result" / "model.xml").exists()
    budget = result.report["budget"]
    assert budget["measured"]["share"] == pytest.approx(0.5, abs=0.12)
    timed = [each for each in result.report["after"]["latency"] if each["runtime"] == OPENVINO]
    assert {each["threads"] for each in timed} >= {1}
    table = read_table(path_in_cache(Setting(device=OPENVINO).machine))
    assert table.machine["runtime"].startswith("openvino") and (table.times or table.unsettled)
    assert measure_table([], Setting(device=OPENVINO)) == table


def test_times_beside_an_mac_budget_are_openvinos_too() -> None:
    report = halved(Convolutions(), pixels(), latency_on=OPENVINO, format=()).report
    assert report["formats"][OPENVINO]["reason"] == ""
    assert any(each["runtime"] == OPENVINO for each in report["after"]["latency"])
