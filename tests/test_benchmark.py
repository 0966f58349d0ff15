"""Networks timed against each other: statistics, files, processes, and why one is not faster."""

from __future__ import annotations

import ast
import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from rich.console import Console
from tiny import TinyNet, inputs, write_model
from torch import nn

import compressor
from compressor.cli import main
from compressor.errors import CompressorError, UsageError
from compressor.files.folder import size_of
from compressor.files.format_table import FORMATS, ONNX
from compressor.formats.program_file import run_in
from compressor.graph.counting import count_macs
from compressor.graph.programs.drawing import random_inputs
from compressor.latency import read_table
from compressor.latency.machine import machine_of
from compressor.latency.operators import (
    Operator,
    operators_in,
    operators_of,
    profile,
    read_structure,
)
from compressor.latency.statistics import ratio_of, speedup_of, summary_of
from compressor.loading import load_program_file
from compressor.options import BenchOptions, ModelOptions
from compressor.runtimes.starting import start_in
from compressor.runtimes.ways import ways_of
from compressor.studies.bench import Way, time_modules, turns
from compressor.studies.bench.entrants import open_entrant
from compressor.studies.bench.slow_layers import FixedCost, fixed_cost, slow_layers
from compressor.studies.bench.tables import fixed_words, layers_table, slow_tables
from compressor.torch_calls import computing_in

BOTH = ("onnxruntime", "torch")
SHAPED, LARGER = (ModelOptions(input=(shape,)) for shape in ("1x3x8x8", "2x3x16x16"))


def rounds(median: float, *, spread: float = 0.02, drift: float = 0.0, seed: int = 0) -> list:
    rng = np.random.default_rng(seed)
    slow = 1 + drift * np.linspace(0, 1, 15)
    return [list(median * s * (1 + spread * rng.standard_normal(20))) for s in slow]


def deep(width: int) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU()]
    for _ in range(3):
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


# -- statistics ---------------------------------------------------------------------------------


def test_the_interval_holds_the_ratio_and_knows_when_nothing_is_clear() -> None:
    half = ratio_of(rounds(10.0), rounds(5.0, seed=1))
    assert half.low < 2 < half.high
    assert half.is_clear
    assert half.high - half.low < 0.1
    same = ratio_of(rounds(10.0, spread=0.2), rounds(10.0, spread=0.2, seed=1))
    assert not same.is_clear


@pytest.mark.parametrize(
    ("smaller", "again", "is_noisy"),
    [
        ({"spread": 0.02}, {"median": 10.0}, False),
        ({"spread": 2.0}, {"median": 10.0}, True),
        ({"spread": 0.02}, {"median": 12.0}, True),
    ],
)
def test_times_are_noisy_where_the_interval_is_wide_or_the_original_is_not_itself(
    smaller: dict[str, float], again: dict[str, float], is_noisy: bool
) -> None:
    found = speedup_of(rounds(10.0), rounds(5.0, seed=1, **smaller), rounds(seed=2, **again))
    assert found.is_noisy is is_noisy
    assert found.noise.value == pytest.approx(10.0 / again["median"], rel=0.02)


def test_a_machine_that_slows_down_slows_both() -> None:
    """Rounds are resampled in pairs: drift that both share does not widen the interval."""
    found = ratio_of(rounds(10.0, drift=1.0), rounds(5.0, drift=1.0, seed=1))
    assert found.low < 2 < found.high
    wide = ratio_of(rounds(10.0, drift=1.0), rounds(7.5, seed=1))
    assert wide.high - wide.low > 2 * (found.high - found.low)


def test_percentiles_are_of_all_calls() -> None:
    found = summary_of([[1.0] * 50, [2.0] * 49, [100.0]])
    assert (found.calls, found.p50, found.p90) == (100, 1.5, 2.0)
    assert found.p99 > 2


# -- what is timed, and how --------------------------------------------------------------------


def test_ways_are_all_combinations_and_threads_matter_on_processors_alone() -> None:
    found = ways_of(("onnxruntime", "torch"), "cpu", (1, 2), (1, 8))
    assert len(set(found)) == 8
    assert len(ways_of(("torch",), "cuda", (1, 2), (1, 8))) == 2


def test_a_model_a_folder_and_a_file_are_opened(tmp_path: Path) -> None:
    result = compressor.compress(TinyNet(16), inputs(), 0.5, round_to=1)
    result.save(tmp_path / "out")
    folder = open_entrant(str(tmp_path / "out"), tmp_path / "a", SHAPED)
    file = open_entrant(str(tmp_path / "out" / "model.onnx"), tmp_path / "b", SHAPED)
    assert folder.files["onnx"] == file.files["onnx"]
    assert folder.file_for("torch").name == "model.pt2"
    with pytest.raises(UsageError, match=r"no \.pt2 program .*PyTorch, eager runs") as caught:
        file.file_for("torch")
    assert "--backend onnxruntime" in caught.value.next_step
    model = open_entrant(str(write_model(tmp_path / "net.pt")), tmp_path / "c", SHAPED, BOTH)
    onnx = model.files["onnx"]
    assert size_of(onnx) == onnx.stat().st_size > 0
    program = load_program_file(model.file_for("torch"))
    (x,), _ = random_inputs(program, 5, "cpu", 0)
    assert x.shape == (5, 3, 8, 8)
    assert float(x.std()) > 0.5


def test_macs_of_a_file_are_those_of_the_network(tmp_path: Path) -> None:
    net = deep(12).eval()
    write_model(tmp_path / "net.pt", net)
    file = open_entrant(str(tmp_path / "net.pt"), tmp_path / "x", LARGER).files["onnx"]
    expected = count_macs(net, (torch.randn(1, 3, 16, 16),), {})
    assert sum(operator.macs for operator in operators_of(file)) == expected
    assert sum(operator.macs for operator in operators_of(file, batch=3)) == expected


def test_operators_are_counted_without_the_numbers_of_their_weights(tmp_path: Path) -> None:
    write_model(tmp_path / "net.pt", deep(32).eval())
    file = open_entrant(str(tmp_path / "net.pt"), tmp_path / "x", LARGER).files["onnx"]
    whole, bare = onnx.load(str(file)), read_structure(file)
    assert bare.ByteSize() < 0.5 * whole.ByteSize()
    assert operators_in(bare) == operators_in(whole) == operators_of(file)
    for threshold in (0, 4096):
        apart = tmp_path / f"{threshold}.onnx"
        how = {"save_as_external_data": True, "location": f"{threshold}.data"}
        onnx.save_model(onnx.load(str(file)), str(apart), size_threshold=threshold, **how)
        assert operators_of(apart) == operators_of(file)
    apart.with_name(how["location"]).unlink()  # it has nothing but weights
    assert operators_of(apart) == operators_of(file)


def test_every_layer_with_macs_has_a_time(tmp_path: Path) -> None:
    """Whatever the runtime calls it: convolutions in blocks go by another name."""
    write_model(tmp_path / "net.pt", deep(32))
    found = profile(open_entrant(str(tmp_path / "net.pt"), tmp_path / "x", LARGER).files["onnx"])
    timed = {operator.layer: operator.ms for operator in found if operator.macs}
    assert timed.keys() == {"0", "2", "4", "6", "10"}
    assert all(ms > 0 for ms in timed.values())


# -- why it is not faster -------------------------------------------------------------------------


def operator(name: str, macs: int, ms: float, width: int = 32, traffic: int = 1) -> Operator:
    return Operator(name, name, "Conv", macs, traffic, width, ms)


@pytest.mark.parametrize(
    ("after", "why"),
    [
        (operator("a", 500, 0.9, width=31), "off the kernels' step"),
        (operator("a", 500, 0.019), "calling it"),
        (operator("a", 500, 0.9, traffic=1000), "bound by memory"),
        (operator("a", 500, 0.9), "less well at this width"),
    ],
)
def test_a_layer_that_did_not_follow_is_explained(after: Operator, why: str) -> None:
    before = operator("a", 1000, 1.0 if after.ms > 0.1 else 0.02)
    (slow,) = slow_layers([before], [after])
    assert why in slow.why
    assert (slow.macs_left, slow.width) == (0.5, after.width)
    assert slow.next_step


def test_layers_that_followed_or_are_as_they_were_are_not_named() -> None:
    before = [operator("a", 1000, 1.0), operator("b", 1000, 1.0), operator("c", 1000, 1.0)]
    after = [operator("a", 500, 0.52), operator("b", 1000, 1.4), operator("new", 10, 1.0)]
    assert slow_layers(before, after) == []


def test_what_did_not_fall_with_the_macs_is_a_fixed_cost() -> None:
    """A layer at a quarter of its MACs that takes 61 % of its time has 48 % that stays."""
    before = [operator("a", 1000, 1.0), operator("b", 1000, 1.0), operator("c", 0, 0.3)]
    after = [operator("a", 250, 0.61), operator("b", 250, 0.25), operator("c", 0, 0.3)]
    found = fixed_cost(before, after)
    assert (found.ms, found.layers) == (pytest.approx(0.48), 2)
    assert found.share == pytest.approx(0.48 / 1.16)
    words = fixed_words("small", found)
    assert "about 41% of its time (0.48 of 1.16 ms)" in words
    assert "only fewer layers" in words
    assert fixed_cost(before, before) == FixedCost(0.0, 2.3, 0)
    assert fixed_words("same", fixed_cost(before, before)) == ""


def printed(*tables: Any) -> list[str]:
    console = Console(width=80, file=io.StringIO())
    for table in tables:
        console.print(table)
    written: Any = console.file
    return str(written.getvalue()).splitlines()


def test_layers_with_one_reason_are_a_table_with_one_advice() -> None:
    name = "exported/a-folder-with-a-long-name/resnet50-halved"
    before = [operator(f"encoder.layers.encoder_layer_{i}.mlp.0", 1000, 1.0) for i in range(25)]
    after = [operator(o.name, 500, 0.9, width=31) for o in before[1:]]
    after += [operator(before[0].name, 500, 0.9)]
    lines = printed(*slow_tables(name, slow_layers(before, after)))
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    assert text.count("--round-to auto") == 1 and text.count("--of latency") == 1
    assert "16 more" in text
    assert all(f"encoder_layer_{i}" in text for i in range(9))


def test_what_the_runtime_adds_is_one_row(tmp_path: Path) -> None:
    def layers(count: int) -> list[dict[str, Any]]:
        own = [operator(f"stages.{i}.conv", 1000, 1.0) for i in range(3)]
        added = [Operator(f"r{i}", f"r{i}", "ReorderInput", 0, 0, 0, 0.5) for i in range(count)]
        return [dataclasses.asdict(o) for o in (*own, *added)]

    names = ["exported/a-folder-with-a-long-name/model.onnx", "exported/another-one/model.onnx"]
    lines = printed(layers_table(names, [layers(4), layers(2)]))
    assert max(map(len, lines)) <= 80
    rows = [line for line in lines if "ReorderInput" in line]
    assert len(rows) == 1
    assert "2 ms" in rows[0] and "1 ms" in rows[0]
    assert "(4 and 2)" in " ".join(lines)


# -- the command -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("onnxruntime", "ONNX Runtime, 1 thread, batch 1"),
        pytest.param("torch", "PyTorch, eager, 1 thread, batch 1", marks=pytest.mark.slow),
    ],
)
def test_a_narrower_network_is_found_faster_and_itself_is_not(
    backend: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, width in (("wide", 64), ("narrow", 16)):
        write_model(tmp_path / f"{name}.pt", deep(width))
    models = [str(tmp_path / f"{name}.pt") for name in ("wide", "narrow")]
    options = ["--input", "2x3x24x24", "--threads", "1", "--batch", "1", "--seconds", "0.8"]
    options += ["--backend", backend, "--out", str(tmp_path / "found.json")]
    assert main(["bench", *models, *options]) == 0
    shown = capsys.readouterr().out
    assert words in shown
    found = json.loads((tmp_path / "found.json").read_text())
    assert [way["backend"] for way in found["ways"]] == [backend]
    for way in found["ways"]:
        itself, narrow = way["records"]
        assert narrow["faster"]["low"] > 1.3
        assert narrow["ms"]["p50"] < itself["ms"]["p50"]
        assert 0.7 < itself["faster"]["value"] < 1.4
        assert narrow["gflop_per_s"] > 0
        assert narrow["peak_mb"] > 5
    assert found["networks"][0]["macs"] > 10 * found["networks"][1]["macs"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "nothing to time"),
        (["missing.onnx"], "there is no file missing.onnx"),
        (["broken.onnx"], "cannot be read"),
        (["broken.onnx", "--backend", "torch"], "there is no .pt2 program"),
        (["text.onnx"], "text.onnx is a text file, and no network can be read from it"),
        (
            ["broken.onnx", "--backend", "torhc"],
            "'torhc' is not one of onnxruntime, tensorrt",
        ),
        (
            ["broken.onnx", "--backend", "tensorrt", "--device", "cuda"],
            "this ONNX Runtime does not run on 'tensorrt'",
        ),
        (["broken.onnx", "--batch", "0"], "at least 1"),
        (["broken.onnx", "--seconds", "0"], "no time"),
        (["broken.onnx", "--out", "broken.onnx"], "no .json file"),
        (["broken.onnx", "--out", "there.json"], "output file exists"),
    ],
)
def test_what_cannot_be_timed_is_refused(
    arguments: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.onnx").write_bytes(b"\x08\x0a\x12not a network")
    Path("text.onnx").write_text("version https://git-lfs.github.com/spec/v1")
    Path("there.json").write_text("{}")
    assert main(["bench", *arguments]) in (1, 2)
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error
    assert Path("broken.onnx").read_bytes().startswith(b"\x08")


@pytest.mark.slow
def test_a_way_that_does_not_work_is_said_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A network for one size of batch runs with no other."""

    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x).reshape(2, 3) + 1

    compressor.save(Fixed().eval(), torch.randn(2, 3), str(tmp_path / "fixed.pt"))
    options = ["--threads", "1", "--batch", "2,3", "--seconds", "0.3", "--trust-pickle"]
    code = main(["bench", str(tmp_path / "fixed.pt"), *options])
    shown = capsys.readouterr()
    assert code == 0
    assert "batch 2" in shown.out


# -- on another machine --------------------------------------------------------------------------


def test_a_result_brings_a_script_that_times_it_anywhere(tmp_path: Path) -> None:
    compressor.compress(deep(64), torch.randn(2, 3, 24, 24), 0.9).save(tmp_path / "out")
    script = tmp_path / "out" / "bench.py"
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(script.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported - set(sys.stdlib_module_names) == {"numpy", "onnxruntime"}
    words = [sys.executable, str(script), "--seconds", "0.5", "--layers", "--json", "found.json"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "x faster (" in done.stdout and "the original differs from itself by" in done.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["ms"]["after"] < found["ms"]["before"]
    assert found["layers"]["before"]
    (tmp_path / "out" / "original.onnx").unlink()
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "original.onnx should lie beside this script" in done.stderr


@pytest.mark.slow
def test_the_script_times_layers_for_a_latency_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(write_model(tmp_path / "net.pt", TinyNet()))
    command = [model, "--input", "1x3x8x8", "--trust-pickle"]
    assert main([*command, "--ratio", "0.4", "--out", str(tmp_path / "out")]) == 0
    table = tmp_path / "table.json"
    words = [sys.executable, str(tmp_path / "out" / "bench.py"), "--table", str(table)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    measured = read_table(table)
    assert measured.machine == machine_of(1, 1, "cpu")
    assert all(ms > 0 for points in measured.times.values() for ms in points.values())
    asked = ["--of", "latency", "--latency-table", str(table), "--ratio", "0.05", "--dry-run"]
    # on layers of microseconds noise may leave nothing to save, which is no matter of the table
    assert main([*command, *asked, "--best-effort"]) == 0
    assert "time layers" in capsys.readouterr().err


@pytest.mark.slow
def test_a_worker_that_dies_between_rounds_is_named(tmp_path: Path) -> None:
    entrant = open_entrant(str(write_model(tmp_path / "net.pt")), tmp_path / "made", SHAPED)
    (way, *_) = ways_of(("onnxruntime",), "cpu", (1,), (1,))
    asked = {
        "way": dataclasses.asdict(way),
        "home": FORMATS["onnx"].home,
        "file": str(entrant.file_for(way.backend)),
        "seed": 0,
    }
    with turns._running("net", asked) as process:
        assert process.round(0.01)["ms"]
        process._popen.kill()
        process._popen.wait()
        with pytest.raises(CompressorError, match="its process ended") as caught:
            process.round(0.01)
    assert caught.value.where == "net"


def test_modules_are_timed_in_this_process_and_stay_as_they_are() -> None:
    wide, narrow = deep(64).train(), deep(16)
    way = Way("torch", "cpu", 1, 2)
    found = time_modules(
        {"wide": wide, "narrow": narrow}, (torch.randn(2, 3, 24, 24),), {}, way, seconds=0.3
    )
    assert [record["name"] for record in found] == ["wide", "narrow"]
    assert found[1]["faster"]["value"] > 1.5
    assert found[0]["faster"]["low"] < 1.3  # itself again: the noise
    assert wide.training
    with pytest.raises(CompressorError, match="does not run"):
        time_modules({"wide": wide}, (torch.randn(2, 5, 24, 24),), {}, way)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backend": ("torch-graphs",)}, "CUDA graphs are recorded on a GPU"),
        ({"backend": ("tensorrt",)}, "TensorRT runs networks on a GPU; give --device cuda"),
        (
            {"backend": ("tensorrt",), "device": "cuda", "precision": ("fp16",)},
            "ONNX Runtime computes as the file says",
        ),
        ({"backend": ("torch",), "precision": ("tf32",)}, "tf32 is of GPUs"),
        ({"precision": ("bf16",)}, "ONNX Runtime computes as the file says"),
    ],
)
def test_ways_that_there_are_not_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        BenchOptions(**options)


def test_tensorrt_is_asked_for_by_name_and_missed_where_the_runtime_falls_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its libraries ONNX Runtime would run the network elsewhere, in silence."""
    asked: list[list[str]] = []

    class Fallen:
        def __init__(self, network: Any, options: Any, *, providers: list[str]) -> None:
            asked.append(providers)

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Fallen)
    way = Way("tensorrt", "cuda", 1, 1)
    assert way.words == "TensorRT, by ONNX Runtime, cuda, batch 1"
    with pytest.raises(CompressorError, match="cannot use 'tensorrt' here"):
        start_in(FORMATS[ONNX].runner)(tmp_path / "net.onnx", way, 0)
    assert asked == [["TensorrtExecutionProvider", "CUDAExecutionProvider"]]


def test_a_module_is_moved_to_the_numbers_that_it_computes_in() -> None:
    way, module = Way("torch", "cpu", 1, 2, "bf16"), deep(4)
    with computing_in(way.precision):
        output = run_in(way, module, (torch.randn(2, 3, 8, 8),), {})()
    assert output.dtype is torch.bfloat16
    assert not output.requires_grad
