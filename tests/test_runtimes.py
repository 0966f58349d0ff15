"""What formats of other runtimes have in common: bench, refusals, and twelve networks, halved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torchvision
from deployed import ZOO, Convolutions, halved, has, installed, pixels
from torch import nn

import compressor
from compressor.cli import main
from compressor.errors import CompressorError, UsageError
from compressor.files.format_table import EXECUTORCH, FORMATS, NCNN, ONNX, OPENVINO
from compressor.formats.job import methods_of
from compressor.options import ExportOptions, Options
from compressor.run import footprints
from compressor.runtimes.starting import start_in
from compressor.runtimes.ways import Way
from compressor.studies.export import export_again
from compressor.watch import Silent

NAMES = (OPENVINO, EXECUTORCH, NCNN)
RUNTIMES = [pytest.param(name, marks=installed(name)) for name in NAMES]

REFUSED = {
    ("convnext_tiny", NCNN): "it has no operators for Gather",
    ("swin_t", NCNN): "it has no operators for Tensor.reshape",
}
"""Networks that a runtime does not take: (network, format) -> words of the reason."""


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNTIMES)
def test_bench_times_its_files(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "result"
    halved(Convolutions(), pixels(), format=(ONNX, name)).save(folder)
    compressor.save(Convolutions().eval(), pixels(), tmp_path / "net.pt2")
    asked = ("--backend", name, "--seconds", "0.2", "--threads", "1", "--batch", "1")
    out = tmp_path / "found.json"
    file = str(folder / FORMATS[name].file)
    networks = [str(tmp_path / "net.pt2"), str(folder), file]
    assert main(["bench", *networks, *asked, "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    (way,) = found["ways"]
    assert way["backend"] == name and [each["name"] for each in way["records"]] == networks
    assert all(each["ms"]["p50"] > 0 for each in way["records"])


@pytest.mark.parametrize("name", NAMES)
def test_the_target_brings_its_format(name: str) -> None:
    assert Options(latency_on=name, format=("pt2",)).format == ("pt2", name)
    assert Options(latency_on=name, format=(name,)).format == (name,)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNTIMES[1:])
def test_a_share_of_its_time_is_met_on_its_clock(name: str, tmp_path: Path) -> None:
    """Runtimes without a record of operators; tests/test_openvino_clock.py has the other."""
    torch.manual_seed(0)
    module = nn.Sequential(
        *(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 128, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(128, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 1024, 10)),
    )
    x = torch.randn(1, 3, 32, 32)
    asked = {"of": "latency", "latency_on": name, "criterion": "l2"}
    result = compressor.compress(module.eval(), x, 0.5, **asked)
    result.save(tmp_path / "result")
    assert (tmp_path / "result" / FORMATS[name].file).exists()
    assert result.report["budget"]["measured"]["share"] == pytest.approx(0.5, abs=0.12)
    assert any(each["runtime"] == name for each in result.report["after"]["latency"])


@installed(OPENVINO)
@pytest.mark.slow
def test_bench_takes_openvino_models_with_fewer_bits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, options = tmp_path / "result", ExportOptions(format=OPENVINO, half=True)
    halved(Convolutions(), pixels()).save(folder)
    export_again(folder, options, Silent(), target=folder)
    assert main(["bench", str(folder / "model_fp16.xml"), "--backend", OPENVINO]) == 0
    assert "OpenVINO, 1 thread, batch 8" in capsys.readouterr().out


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_damaged_file_and_another_device_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / FORMATS[name].file
    path.write_bytes(b"<net>")
    start, way = start_in(FORMATS[name].runner), Way(name, "cpu", 1, 1)
    for refused in (lambda: methods_of(name).count(path), lambda: start(path, way, 0)):
        with pytest.raises(CompressorError, match=r"could not run|cannot be read"):
            refused()
    with pytest.raises(UsageError, match="timed on the CPU"):
        start(path, Way(name, "cuda", 1, 1), 0)


@pytest.mark.slow
@pytest.mark.parametrize("network", ZOO)
def test_networks_of_torchvision_agree_when_halved(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(footprints, "LATENCY_SECONDS", 0.05)
    there = [name for name in NAMES if has(name)]
    if not there:
        pytest.skip("no other runtime is installed")
    module = getattr(torchvision.models, network)(weights=None)
    size = 224 if network == "vit_b_16" else 64
    example = torch.randn(1, 3, size, size)
    found = halved(module, example, round_to=8, format=(ONNX, *there)).report["formats"]
    print(network, {name: (each["difference"], each["reason"]) for name, each in found.items()})
    for name in there:
        words = REFUSED.get((network, name), "")
        assert bool(found[name]["reason"]) == bool(words) and words in found[name]["reason"]
