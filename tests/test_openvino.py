"""OpenVINO models: written, verified in OpenVINO, timed by it, counted, refused without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from deployed import Attention, Convolutions, halved, ids, pixels
from onnx import numpy_helper
from torch import Tensor, nn

import compressor
from compressor.files.format_table import FORMATS, ONNX, OPENVINO
from compressor.formats import openvino_format
from compressor.formats.job import methods_of
from compressor.options import BenchOptions
from compressor.runtimes.onnx import open_session

openvino = pytest.importorskip("openvino", reason="the extra openvino is not installed")


def compressed(module: nn.Module, example: Tensor, **options: Any) -> compressor.Result:
    return halved(module, example, **{"format": (ONNX, OPENVINO), **options})


@pytest.mark.parametrize(
    ("make", "example"),
    [
        pytest.param(Convolutions, pixels, id="convolutions"),
        pytest.param(Attention, ids, id="tokens", marks=pytest.mark.slow),
    ],
)
def test_a_smaller_network_is_the_same_in_openvino(make: Any, example: Any, tmp_path: Path) -> None:
    result = compressed(make(), example())
    result.save(tmp_path / "result")
    folder = tmp_path / "result"
    outcome = result.report["formats"][OPENVINO]
    assert outcome["reason"] == "" and outcome["difference"] < 1e-4
    files = [folder / name for name in FORMATS[OPENVINO].files]
    assert outcome["size_bytes"] == sum(path.stat().st_size for path in files)
    assert {path.name for path in files} < result.report["files"].keys()
    run = openvino_format.as_function(openvino_format.open_model(files[0]), files[0])
    session = open_session(folder / "model.onnx", 1)
    (name,) = (spec.name for spec in session.get_inputs())
    for samples in (1, 3):
        x = example()[:1].repeat(samples, *[1] * (example().dim() - 1))
        (found,), (wanted,) = run({name: x}), session.run(None, {name: x.numpy()})
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * abs(wanted).max())
    counted = {n: methods_of(n).count(folder / FORMATS[n].file) for n in (ONNX, OPENVINO)}
    assert counted[OPENVINO].macs == pytest.approx(counted[ONNX].macs, rel=0.02)
    assert counted[OPENVINO].macs == pytest.approx(result.report["after"]["macs"], rel=0.02)


def test_its_times_stand_beside_the_others_and_its_origin_in_the_file(tmp_path: Path) -> None:
    result = compressed(Convolutions(), pixels())
    result.save(tmp_path / "result")
    for state in ("before", "after"):
        runtimes = [latency["runtime"] for latency in result.report[state]["latency"]]
        assert runtimes[0] == "onnxruntime" and runtimes[-1] == "openvino"
        assert result.report[state]["latency"][-1]["p50_ms"] > 0
    assert len(result.report["speedups"]) == len(result.report["after"]["latency"])
    assert "openvino" in (tmp_path / "result" / "report.md").read_text()
    model = openvino.Core().read_model(str(tmp_path / "result" / "model.xml"))
    assert str(result.report["after"]["macs"]) in str(model.get_rt_info(["compress"]).value)


def test_without_an_onnx_file_it_is_made_of_one_all_the_same(tmp_path: Path) -> None:
    result = compressed(Convolutions(), pixels(), format=(OPENVINO,))
    result.save(tmp_path / "result")
    names = {path.name for path in (tmp_path / "result").iterdir()}
    assert {"model.xml", "model.bin"} < names and not any("onnx" in name for name in names)


def test_a_wrong_file_does_not_appear(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = openvino_format.convert

    def wrong(file: Path, path: Path, *rest: Any) -> None:
        model = onnx.load(file)
        weight = next(each for each in model.graph.initializer if len(each.dims) == 4)
        weight.CopyFrom(numpy_helper.from_array(1.1 * numpy_helper.to_array(weight), weight.name))
        onnx.save(model, tmp_path / "wrong.onnx")
        own(tmp_path / "wrong.onnx", path, *rest)

    monkeypatch.setattr(openvino_format, "convert", wrong)
    result = compressed(Convolutions(), pixels())
    result.save(tmp_path / "result")
    assert "differ" in result.report["formats"][OPENVINO]["reason"]
    assert not (tmp_path / "result" / "model.xml").exists()
    assert not (tmp_path / "result" / "model.bin").exists()
    assert any("OpenVINO model" in note for note in result.report["notes"])


def test_backends_may_be_listed_with_commas() -> None:
    assert BenchOptions(backend=("openvino,torch", "torch")).backend == ("openvino", "torch")
