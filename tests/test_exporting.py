"""`compress export`: a result's ONNX file with other options and smaller types."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from deployed import installed
from tiny import CHANNELS, SIDE, TinyNet, inputs, names_in, write_model, write_samples
from torch import Tensor, nn

import compressor
from compressor.cli import main
from compressor.errors import CompressorError, UsageError
from compressor.files.format_table import ONNX, OPENVINO
from compressor.files.integrity import check_files
from compressor.options import ExportOptions
from compressor.studies.export import export_again, survival
from compressor.studies.export.conversions import EXPORTED
from compressor.watch import Silent


class Flattening(nn.Module):
    """Takes images of one size alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS, 8, 3, padding=1)
        self.head = nn.Linear(8 * SIDE * SIDE, 4)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.conv(x).relu().flatten(1))
        return scores


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result's folder, with the data beside it."""
    place = tmp_path_factory.mktemp("result")
    data = str(write_samples(place / "data.npz"))
    torch.manual_seed(0)
    result = compressor.compress(
        TinyNet(), inputs(), 0.4, data=data, mean=(0.5,) * 3, std=(0.25,) * 3
    )
    result.save(place / "net")
    return place


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "net", tmp_path / "net"))


def export(folder: Path, target: Path | None = None, **options: Any) -> dict[str, Any]:
    chosen = ExportOptions(**options)
    return export_again(folder, chosen, Silent(), target=target or folder, force=True)


def shape_of(path: Path) -> list[Any]:
    (given,) = onnxruntime.InferenceSession(str(path)).get_inputs()
    return list(given.shape)


def test_the_same_options_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    found = export(folder, tmp_path / "again")
    assert (tmp_path / "again/model.onnx").read_bytes() == (folder / "model.onnx").read_bytes()
    assert found["model.onnx"]["difference"] < 1e-4
    assert names_in(tmp_path / "again") == ["exports.json", "model.onnx"]


def test_sizes_and_opset_are_in_the_file_and_its_name(folder: Path) -> None:
    found = export(folder, batch=2, image_size="12x10", opset=18)
    path = folder / "model_b2_12x10_opset18.onnx"
    assert list(found) == [path.name]
    assert shape_of(path) == [2, CHANNELS, 12, 10]
    assert [e.version for e in onnx.load(path).opset_import if not e.domain] == [18]
    assert found[path.name]["latency"][0]["batch"] == 2


@pytest.mark.slow
def test_weights_beside_a_file_are_known_by_their_own_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "wide"
    compressor.compress(TinyNet(32), inputs(), 0.3).save(folder)
    monkeypatch.setattr("compressor.formats.onnx_file._PROTO_LIMIT", 100)
    export(folder)
    names = ("model.onnx", "model.onnx.data")
    check_files(folder, names)
    data = folder / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(CompressorError, match=r"model\.onnx\.data"):
        check_files(folder, names)


def test_a_larger_image_leaves_the_batch_free(folder: Path) -> None:
    export(folder, image_size="16")
    assert shape_of(folder / "model_16x16.onnx") == ["batch", CHANNELS, 16, 16]


def assert_says_where_it_comes_from(file: Path) -> None:
    plan = hashlib.sha256((file.parent / "plan.json").read_bytes()).hexdigest()
    said = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    assert said["compress.plan.sha256"] == plan


def test_half_computes_in_16_bits_between_32_bit_ends(folder: Path) -> None:
    found = export(folder, half=True)
    model = onnx.load(folder / "model_fp16.onnx")
    onnx.checker.check_model(model, full_check=True)
    kinds = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) > 1}
    assert kinds == {onnx.TensorProto.FLOAT16}
    for name in ("model.onnx", "model_fp16.onnx"):
        assert_says_where_it_comes_from(folder / name)
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert 0 < found["model_fp16.onnx"]["difference"] < 0.01
    assert (folder / "model_fp16.onnx").stat().st_size < (folder / "model.onnx").stat().st_size


def test_int8_has_its_own_accuracy_and_time(folder: Path, made: Path) -> None:
    data = str(made / "data.npz")
    found = export(folder, quantize="int8", data=(data,), test=(data,), calibration=32)
    nodes = {node.op_type for node in onnx.load(folder / "model_int8.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= nodes
    assert_says_where_it_comes_from(folder / "model_int8.onnx")
    told = json.loads((folder / "exports.json").read_text())["files"]["model_int8.onnx"]
    assert told["metrics"] == found["model_int8.onnx"]["metrics"]
    assert told["options"]["mean"] == [0.5, 0.5, 0.5]  # as when it was compressed
    whole = found["model.onnx"]["metrics"]["top1"]
    assert told["metrics"]["top1"] == pytest.approx(whole, abs=0.2)
    assert 0 < told["difference"] < 0.5
    assert told["latency"][0]["p50_ms"] > 0
    assert told["size_bytes"] == (folder / "model_int8.onnx").stat().st_size


@pytest.mark.slow
def test_what_was_exported_before_is_still_told_of(folder: Path) -> None:
    export(folder, half=True)
    export(folder, opset=18)
    told = json.loads((folder / "exports.json").read_text())["files"]
    assert sorted(told) == ["model_fp16.onnx", "model_opset18.onnx"]


def test_a_fixed_batch_is_evaluated_on_every_sample(folder: Path, made: Path) -> None:
    """64 samples in batches of 24 are two and a part."""
    data = (str(made / "data.npz"),)
    free = export(folder, test=data)["model.onnx"]["metrics"]
    assert export(folder, batch=24, test=data)["model_b24.onnx"]["metrics"] == free


def test_a_file_that_ends_the_process_is_compared_but_not_timed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = replace(EXPORTED[ONNX], survives=lambda path: False)
    monkeypatch.setitem(EXPORTED, ONNX, never)  # type: ignore[arg-type]
    found = export(folder, half=True)["model_fp16.onnx"]
    assert found["difference"] > 0
    assert found["latency"] == []


@pytest.mark.slow
def test_a_file_is_tried_in_a_process_of_its_own(folder: Path) -> None:
    assert survival.runs_here(folder / "model.onnx")
    (folder / "model.onnx").write_bytes(b"no network")
    assert not survival.runs_here(folder / "model.onnx")


@pytest.mark.slow
def test_a_folder_with_such_files_can_be_replaced(
    folder: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(folder, half=True)
    model = str(write_model(folder.parent / "net.pt"))
    command = [model, "--input", "1x3x8x8", "--out", str(folder), "--ratio", "0.4"]
    assert main([*command, "--force"]) == 0
    assert "model_fp16.onnx" not in names_in(folder)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"quantize": "int8"}, "found on samples"),
        ({"image_size": "7x"}, "no size such as"),
        ({"image_size": "0"}, "no size such as"),
        ({"batch": 0}, "below the least"),
        ({"opset": 0}, "below the least"),
        ({"opset": 4}, "version 4 of ONNX's operators"),
        ({"quantize": "int4"}, "not one of none, int8"),
    ],
)
def test_what_cannot_be_meant_is_refused(folder: Path, options: dict[str, Any], words: str) -> None:
    before = names_in(folder)
    with pytest.raises(UsageError, match=words):
        export(folder, **options)
    assert names_in(folder) == before


def test_samples_of_another_size_are_refused(folder: Path, tmp_path: Path) -> None:
    data = str(write_samples(tmp_path / "large.npz", side=12))
    with pytest.raises(UsageError, match="3x12x12, and the file takes 3x8x8"):
        export(folder, quantize="int8", data=(data,))


def test_a_size_that_the_network_cannot_take_is_refused(tmp_path: Path) -> None:
    compressor.compress(Flattening(), inputs(), 0.3).save(tmp_path / "net")
    with pytest.raises(UsageError, match="cannot take such inputs"):
        export(tmp_path / "net", image_size="16")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def change(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("name", ["model.pt2", "plan.json"])
@pytest.mark.parametrize("damage", [cut, change])
def test_a_damaged_result_is_refused(
    folder: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(folder / name)
    with pytest.raises(CompressorError, match=f"{name} is not the file that compress wrote"):
        export(folder)


def test_truncated_weights_are_refused_when_a_class_is_rebuilt(folder: Path) -> None:
    cut(folder / "model.safetensors")
    with pytest.raises(CompressorError, match="weights"):
        compressor.load(folder, TinyNet)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="and this is another folder"):
        export(tmp_path)


def test_the_command_shows_the_files_and_asks_before_it_replaces(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(folder), "--half"]) == 0
    assert "model_fp16.onnx" in capsys.readouterr().out
    assert main(["export", str(folder), "--half"]) == 2
    assert "--force" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "seconds"),
    [
        pytest.param(signal.SIGTERM, 3.0, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, 3.0, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 4.0, marks=pytest.mark.slow),
        (signal.SIGKILL, 4.0),
    ],
)
def test_a_killed_export_leaves_nothing_behind(
    folder: Path, number: signal.Signals, seconds: float
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    command = [sys.executable, "-m", "compressor", "export", str(folder), "--half", "--opset", "18"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(seconds)
    process.send_signal(number)
    assert process.wait() != 0, "it was done before it was killed"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.slow
def test_outputs_of_the_smaller_types_are_those_of_the_network(folder: Path, made: Path) -> None:
    export(folder, half=True, quantize="int8", data=(str(made / "data.npz"),))
    x = inputs(5).numpy()
    first, *others = (
        onnxruntime.InferenceSession(str(folder / name)).run(None, {"x": x})[0]
        for name in ("model.onnx", "model_fp16.onnx", "model_int8.onnx")
    )
    for other, allowed in zip(others, (0.01, 0.3), strict=True):
        assert np.abs(first - other).max() < allowed * np.abs(first).max()


# -- OpenVINO --------------------------------------------------------------------------------------


@installed(OPENVINO)
def test_openvino_models_with_fewer_bits_have_their_own_accuracy_and_time(
    folder: Path, made: Path
) -> None:
    openvino, data = pytest.importorskip("openvino"), str(made / "data.npz")
    asked = {"format": "openvino", "half": True, "quantize": "int8", "calibration": 32}
    found = export(folder, **asked, data=(data,), test=(data,))
    assert list(found) == ["model.xml", "model_fp16.xml", "model_int8.xml"]
    assert not (folder / "model.xml").exists()  # with 32 bits it is made by --format openvino alone
    told = json.loads((folder / "exports.json").read_text())["files"]
    kinds = {}
    for name in ("model_fp16.xml", "model_int8.xml"):
        check_files(folder, (name, name.replace(".xml", ".bin")))
        stored = openvino.Core().read_model(str(folder / name)).get_ops()
        weights = [op for op in stored if op.get_type_name() == "Constant" and len(op.shape) > 1]
        kinds[name] = {op.get_element_type().get_type_name() for op in weights}
        parts = [folder / name, folder / name.replace(".xml", ".bin")]
        assert told[name]["size_bytes"] == sum(part.stat().st_size for part in parts)
        assert set(told[name]["sha256"]) == {part.name for part in parts}
        assert told[name]["metrics"]["top1"] == pytest.approx(
            found["model.xml"]["metrics"]["top1"], abs=0.2
        )
        assert told[name]["latency"][0]["runtime"] == "openvino"
        assert told[name]["latency"][0]["p50_ms"] > 0
    assert "f16" in kinds["model_fp16.xml"] and "i8" in kinds["model_int8.xml"]
    assert found["model.xml"]["difference"] < 1e-4
    assert 0 < found["model_fp16.xml"]["difference"] < 0.01
    assert found["model_fp16.xml"]["difference"] < found["model_int8.xml"]["difference"] < 0.5


@installed(OPENVINO)
def test_openvino_models_have_sizes_in_their_names(folder: Path, tmp_path: Path) -> None:
    found = export(folder, tmp_path / "out", format="openvino", batch=2, image_size="12x10")
    assert list(found) == ["model_b2_12x10.xml"]
    assert names_in(tmp_path / "out") == [
        "exports.json",
        "model_b2_12x10.bin",
        "model_b2_12x10.xml",
    ]


def test_an_opset_is_of_onnx_files_and_weights_are_of_all() -> None:
    with pytest.raises(UsageError, match="it is of ONNX files"):
        ExportOptions(format="openvino", opset=18)
    with pytest.raises(UsageError, match="writes the folder's usual files"):
        ExportOptions(format="openvino", weights="trained.pt")


def test_without_openvino_nothing_is_exported_for_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(folder.iterdir())
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UsageError, match="openvino is not installed") as refused:
        export(folder, format="openvino", half=True)
    assert "--format openvino" in str(refused.value)
    assert sorted(folder.iterdir()) == before
