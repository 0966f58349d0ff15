"""ncnn models: written by pnnx, verified in ncnn, timed by it, counted, refused by name."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from deployed import Attention, Convolutions, halved, ids, installed, pixels
from torch import Tensor, nn

import compressor
from compressor.cli import main
from compressor.errors import CompressorError, UsageError
from compressor.files.format_table import FORMATS, NCNN, ONNX
from compressor.formats import ncnn_conversion, ncnn_format
from compressor.formats.job import methods_of
from compressor.formats.ncnn_counts import count_layers
from compressor.runtimes.ncnn_params import Layer, read_layers, with_sizes
from compressor.runtimes.onnx import open_session
from compressor.runtimes.starting import start_in
from compressor.runtimes.ways import Way

FILE = FORMATS[NCNN].file

PARAM = """7767517
4 4
Input            in0      0 1 in0
Split            split    1 2 in0 1 2
Convolution      conv     1 1 1 out0 0=8 1=3 6=216 5=1 -23310=2,0.5,1.0
Embed            rows     1 1 2 out1 0=4 1=20 3=80
"""


def compressed(module: nn.Module, example: Tensor, **options: Any) -> compressor.Result:
    return halved(module, example, **{"format": (ONNX, NCNN), **options})


# -- without it ------------------------------------------------------------------------------------


def test_a_param_file_is_read_and_told_its_sizes(tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_text(with_sizes(PARAM, {"in0": (3, 6, 8)}))
    first, _, conv, _ = read_layers(path)
    assert first == Layer("Input", "in0", (), ("in0",), {2: "3", 1: "6", 0: "8"})
    assert (conv.inputs, conv.outputs, conv.number(6), conv.number(99)) == (
        ("1",),
        ("out0",),
        216,
        0,
    )
    path.with_suffix(".bin").write_bytes(bytes(4 * (1 + 216 + 8 + 1 + 80)))
    sizes = {"in0": (3, 6, 8), "1": (3, 6, 8), "2": (3, 6, 8), "out0": (8, 4, 6), "out1": (1, 4)}
    counted = count_layers(path, sizes)
    assert (counted.macs, counted.params) == (8 * 4 * 6 * 3 * 9, 216 + 8 + 80)
    path.write_text("no such file")
    with pytest.raises(ValueError, match="does not begin"):
        read_layers(path)


@pytest.mark.parametrize(
    ("code", "seconds", "words"),
    [
        ("import os; os.kill(os.getpid(), 9)", 60, "pnnx broke down (signal 9)"),
        ("import sys; sys.exit('no such operator')", 60, "pnnx failed: no such operator"),
        ("import time; time.sleep(60)", 0.2, "pnnx took over 0.2 s"),
        ("pass", 60, "pnnx wrote no file"),
    ],
)
def test_what_pnnx_fails_at_is_refused_and_leaves_nothing(
    code: str, seconds: float, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "pnnx"
    program.write_text(f"#!{sys.executable}\n{code}\n")
    program.chmod(0o755)
    monkeypatch.setattr(
        ncnn_conversion.extras, "load", lambda *_: SimpleNamespace(EXEC_PATH=str(program))
    )
    monkeypatch.setattr(ncnn_conversion, "MOST_SECONDS", seconds)
    (tmp_path / "out").mkdir()
    network = torch.export.export(nn.Linear(4, 2), (torch.randn(1, 4),))
    with pytest.raises(CompressorError, match="ncnn does not take the network") as refused:
        ncnn_format.write_program(network, tmp_path / "out" / FILE, None)
    assert words in str(refused.value) and "deploy the ONNX file" in str(refused.value)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("example", "words"),
    [
        (torch.tensor([[1.0, 2.0]], dtype=torch.float64), "its input x is of type double"),
        (torch.tensor(2.0), "its input x is a single number"),
    ],
)
def test_inputs_that_ncnn_has_not_are_refused(example: Tensor, words: str, tmp_path: Path) -> None:
    class Twice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

    program = torch.export.export(Twice(), (example,))
    with pytest.raises(CompressorError, match=words):
        ncnn_format.write_program(program, tmp_path / FILE, None)


# -- with it ---------------------------------------------------------------------------------------


@installed(NCNN)
@pytest.mark.parametrize(
    ("make", "example"),
    [
        pytest.param(Convolutions, pixels, id="convolutions"),
        pytest.param(Attention, ids, id="tokens", marks=pytest.mark.slow),
    ],
)
def test_a_smaller_network_is_the_same_in_ncnn(make: Any, example: Any, tmp_path: Path) -> None:
    result, folder = compressed(make(), example()), tmp_path / "result"
    result.save(folder)
    outcome, files = result.report["formats"][NCNN], [folder / n for n in FORMATS[NCNN].files]
    assert outcome["reason"] == "" and outcome["difference"] < 1e-4
    assert outcome["how"] == "it takes one sample a call"
    assert outcome["size_bytes"] == sum(path.stat().st_size for path in files)
    assert {path.name for path in files} < result.report["files"].keys()
    network = ncnn_format.open_network(files[0], 1)
    session, x = open_session(folder / "model.onnx", 1), example()[:1]
    (name,) = (spec.name for spec in session.get_inputs())
    (found,), (wanted,) = network([x.numpy()]), session.run(None, {name: x.numpy()})
    np.testing.assert_allclose(found, wanted[0], rtol=1e-3, atol=1e-4 * abs(wanted).max())
    counted, after = methods_of(NCNN).count(files[0]), result.report["after"]
    assert counted.macs == pytest.approx(after["macs"], rel=0.02)
    assert counted.params == pytest.approx(after["params"], rel=0.1)
    runtimes = [latency["runtime"] for latency in after["latency"]]
    assert runtimes[0] == "onnxruntime" and runtimes[-1] == "ncnn"


@installed(NCNN)
def test_a_wrong_file_does_not_appear(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = ncnn_format.convert

    def wrong(source: Path, path: Path) -> Any:
        outputs, weights = own(source, path), path.with_suffix(".bin")
        words = np.fromfile(weights, np.float32)
        (1.1 * words).tofile(weights)
        return outputs

    monkeypatch.setattr(ncnn_format, "convert", wrong)
    result = compressed(Convolutions(), pixels(), format=(NCNN,))
    result.save(tmp_path / "result")
    assert "differ" in result.report["formats"][NCNN]["reason"]
    assert not any("ncnn" in path.name for path in (tmp_path / "result").iterdir())


@installed(NCNN)
@pytest.mark.parametrize(
    ("code", "words"),
    [
        (lambda x: torch.where(x > 0, x, -x), "it has no operators for torch.gt, torch.where"),
        (lambda x: x.argmax(-1), "it has no operators for ArgMax"),
        (lambda x: x.sort(-1).values, "pnnx broke down"),
    ],
    ids=["left by pnnx", "unknown to ncnn", "not read by pnnx"],
)
def test_an_operator_that_ncnn_has_not_is_refused(code: Any, words: str, tmp_path: Path) -> None:
    class Special(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return code(x)

    result = compressed(
        nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4), Special()),
        torch.randn(2, 3, 4),
        format=(NCNN,),
    )
    result.save(tmp_path / "result")
    assert words in result.report["formats"][NCNN]["reason"]
    assert any(note.startswith("no ncnn model is delivered") for note in result.report["notes"])
    assert not any("ncnn" in path.name for path in (tmp_path / "result").iterdir())


@installed(NCNN)
def test_other_runtimes_are_timed_where_ncnn_does_not_take_the_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Steps(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :, ::2, ::2]

    path = str(tmp_path / "net.pt2")
    compressor.save(nn.Sequential(nn.Conv2d(3, 4, 3), Steps()).eval(), pixels(), path)
    how = ("--threads", "1", "--batch", "1", "--seconds", "0.1")
    assert main(["bench", path, "--backend", "onnxruntime,ncnn", *how]) == 0
    shown = capsys.readouterr()
    assert "ONNX Runtime, 1 thread" in shown.out
    assert "nothing is timed by ncnn: " in shown.err
    assert "no operators for Tensor.slice" in shown.err
    assert main(["bench", path, "--backend", "ncnn", *how]) == 1
    assert "no operators for Tensor.slice" in capsys.readouterr().err


@installed(NCNN)
def test_more_than_one_sample_is_refused(tmp_path: Path) -> None:
    program = torch.export.export(Convolutions().eval(), (pixels(),))
    with pytest.raises(CompressorError, match=r"one sample a call, and x has 2"):
        ncnn_format.write_program(program, tmp_path / FILE, None)
    assert list(tmp_path.iterdir()) == []
    way = Way("ncnn", "cpu", 1, 8)
    with pytest.raises(UsageError, match="one sample a call"):
        start_in(FORMATS[NCNN].runner)(tmp_path / FILE, way, 0)
