"""ExecuTorch programs: written, verified in it, timed by it, counted, refused without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from deployed import Attention, Convolutions, halved, ids, installed, pixels
from torch import Tensor, nn

import compressor
from compressor.files.format_table import EXECUTORCH, FORMATS, ONNX
from compressor.formats.job import methods_of
from compressor.formats.onnx_file import capture_for
from compressor.graph.trace import trace
from compressor.records import ExampleInputs
from compressor.runtimes.onnx import open_session


def compressed(module: nn.Module, example: Tensor, **options: Any) -> compressor.Result:
    return halved(module, example, **{"format": (ONNX, EXECUTORCH), **options})


@pytest.mark.parametrize("most", [1, 5])
def test_a_program_is_captured_again_for_a_largest_batch(most: int) -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, *, y: Tensor) -> Tensor:
            return x @ torch.ones(4, 3) + y

    traced = trace(Two(), ExampleInputs((torch.randn(2, 4),), {"y": torch.randn(2, 3)}))
    assert traced.batch_symbol is not None
    captured = capture_for(traced.program, most)
    ranges = [int(each.upper) for each in captured.range_constraints.values()]
    assert ranges == ([most] if most > 1 else [])
    x, y = torch.randn(most, 4), torch.randn(most, 3)
    wanted = traced.program.module()(x, y=y)
    torch.testing.assert_close(captured.module()(x, y=y), wanted)
    with pytest.raises(Exception, match=r"batch|size|shape|Guard"):
        captured.module()(torch.randn(most + 1, 4), y=torch.randn(most + 1, 3))


# -- with it ---------------------------------------------------------------------------------------


@installed(EXECUTORCH)
@pytest.mark.parametrize(
    ("make", "example"),
    [
        pytest.param(Convolutions, pixels, id="convolutions"),
        pytest.param(Attention, ids, id="tokens", marks=pytest.mark.slow),
    ],
)
def test_a_smaller_network_is_the_same_in_executorch(
    make: Any, example: Any, tmp_path: Path
) -> None:
    result, folder = compressed(make(), example()), tmp_path / "result"
    result.save(folder)
    outcome, file = result.report["formats"][EXECUTORCH], folder / FORMATS[EXECUTORCH].file
    assert outcome["reason"] == "" and outcome["difference"] < 1e-4
    assert outcome["size_bytes"] == file.stat().st_size and file.name in result.report["files"]
    runtime = pytest.importorskip("executorch.runtime").Runtime.get()
    method = runtime.load_program(file).load_method("forward")
    session = open_session(folder / "model.onnx", 1)
    (name,) = (spec.name for spec in session.get_inputs())
    for samples in (1, 3):
        x = example()[:1].repeat(samples, *[1] * (example().dim() - 1))
        (found,), (wanted,) = method.execute([x]), session.run(None, {name: x.numpy()})
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * abs(wanted).max())
    counted, after = methods_of(EXECUTORCH).count(file), result.report["after"]
    assert (counted.macs, counted.params) == (after["macs"], after["params"])
    runtimes = [latency["runtime"] for latency in after["latency"]]
    assert runtimes[0] == "onnxruntime" and runtimes[-1] == "executorch"


@installed(EXECUTORCH)
@pytest.mark.slow
def test_a_wrong_file_does_not_appear(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from compressor.formats import executorch_format

    own = executorch_format.capture_for

    def wrong(program: Any, most: int) -> Any:
        captured = own(program, most)
        name, weight = next((n, t) for n, t in captured.state_dict.items() if t.dim() == 4)
        captured.state_dict[name] = nn.Parameter(1.1 * weight.detach())
        return captured

    monkeypatch.setattr(executorch_format, "capture_for", wrong)
    result = compressed(Convolutions(), pixels())
    result.save(tmp_path / "result")
    assert "differ" in result.report["formats"][EXECUTORCH]["reason"]
    assert not (tmp_path / "result" / "model.pte").exists()
