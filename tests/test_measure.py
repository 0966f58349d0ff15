"""Multiply-adds against hand-made numbers and between both forms of a network; latency by ratio."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
import torchvision
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from compressor import compress
from compressor.errors import CompressorError, UsageError
from compressor.graph.analysis import analyse
from compressor.graph.counting import count_macs, count_params
from compressor.graph.trace import trace
from compressor.latency import networks
from compressor.latency.networks import measure_latency
from compressor.records import ExampleInputs
from compressor.runtimes import onnx as onnx_runtime


class Functional(nn.Module):
    """A function as a module, so that both forms can be made of it."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *tensors):
        return self.function(*tensors)


def assert_macs(module: nn.Module, args: tuple[Tensor, ...], expected: int) -> None:
    """The user's class and the exported program both count `expected`."""
    module.eval()
    assert count_macs(module, args, {}) == expected
    assert count_macs(torch.export.export(module, args).module(), args, {}) == expected


@pytest.mark.parametrize(
    ("module", "shape", "expected"),
    [
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), (1, 3, 16, 16), 8 * 3 * 9 * 64),
        (nn.Conv2d(4, 8, 3, groups=4), (1, 4, 10, 10), 8 * 1 * 9 * 64),
        (nn.Conv2d(3, 8, 3, padding="same"), (2, 3, 5, 5), 2 * 8 * 3 * 9 * 25),
        (nn.Conv1d(3, 8, 5), (1, 3, 20), 8 * 3 * 5 * 16),
        (nn.ConvTranspose2d(3, 6, 4, stride=2), (1, 3, 5, 5), 3 * 6 * 16 * 25),
        (nn.Linear(7, 5), (2, 3, 7), 2 * 3 * 7 * 5),
        (nn.LSTM(4, 6, 2, bidirectional=True, batch_first=True), (2, 5, 4), 10 * 2 * (240 + 432)),
        (nn.LSTM(4, 6, proj_size=3), (5, 2, 4), 10 * (24 * 4 + 24 * 3 + 3 * 6)),
        (nn.GRU(4, 6), (5, 1, 4), 5 * (18 * 4 + 18 * 6)),
        (nn.RNN(4, 6, nonlinearity="relu"), (5, 1, 4), 5 * (6 * 4 + 6 * 6)),
        (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2)), (1, 3, 8, 8), 0),
    ],
)
def test_macs_of_layers(module, shape, expected):
    assert_macs(module, (torch.randn(shape),), expected)


@pytest.mark.parametrize(
    ("function", "shapes", "expected"),
    [
        (torch.matmul, [(4, 5), (3, 5, 6)], 3 * 4 * 5 * 6),
        (torch.matmul, [(3, 4, 5), (5,)], 3 * 4 * 5),
        (torch.bmm, [(3, 4, 5), (3, 5, 6)], 3 * 4 * 5 * 6),
        (torch.addmm, [(6,), (4, 5), (5, 6)], 4 * 5 * 6),
        (torch.baddbmm, [(3, 4, 6), (3, 4, 5), (3, 5, 6)], 3 * 4 * 5 * 6),
        (lambda a, b: torch.einsum("bhid,bhjd->bhij", a, b), [(2, 3, 4, 5), (2, 3, 6, 5)], 720),
        (lambda a, b: torch.einsum("...i,oi->...o", a, b), [(2, 3, 4), (5, 4)], 120),
        (
            lambda a, b, c: torch.einsum("ij,jk,kl->il", a, b, c),
            [(2, 3), (3, 4), (4, 5)],
            2 * 3 * 4 + 2 * 4 * 5,
        ),
        (lambda a, b: torch.tensordot(a, b, 2), [(2, 3, 4), (3, 4, 5)], 120),
        (F.scaled_dot_product_attention, [(1, 2, 7, 8), (1, 2, 9, 8), (1, 2, 9, 5)], 14 * 9 * 13),
        (
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
            [(1, 4, 7, 8), (1, 2, 9, 8), (1, 2, 9, 8)],
            4 * 7 * 9 * 16,
        ),
    ],
)
def test_macs_of_functions(function, shapes, expected):
    assert_macs(Functional(function), tuple(torch.randn(s) for s in shapes), expected)


def test_attention_layer_is_not_hidden_by_its_fast_path():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    projections, attention, mlp = 3 * (4 * 8 * 8), 2 * 3 * 3 * 8, 3 * 2 * 8 * 16
    assert torch.backends.mha.get_fastpath_enabled()
    assert_macs(layer, (torch.randn(1, 3, 8),), projections + attention + mlp)
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize(
    ("name", "expected"), [("resnet18", 1_814_073_344), ("mobilenet_v2", 300_774_272)]
)
def test_macs_of_known_networks(name, expected):
    assert_macs(getattr(torchvision.models, name)(), (torch.randn(1, 3, 224, 224),), expected)


def test_macs_of_a_vision_transformer_include_attention():
    model = torchvision.models.VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=5)
    tokens, width, mlp = 17, 32, 64
    per_layer = tokens * width * (4 * width + 2 * mlp) + 2 * tokens * tokens * width
    patches = 16 * 3 * 64 * width
    assert_macs(model, (torch.randn(1, 3, 32, 32),), patches + 2 * per_layer + width * 5)


class ThrownAway(nn.Module):
    """An auxiliary head is computed in evaluation too, and given back in training alone."""

    def __init__(self):
        super().__init__()
        self.stem, self.body, self.out = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 4)
        self.aux = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Conv2d(16, 4, 1))

    def forward(self, x):
        x = torch.relu(self.stem(x))
        aux = self.aux(x).mean((2, 3))
        main = self.out(torch.relu(self.body(x)).mean((2, 3)))
        return (main, aux) if self.training else main


def torch_counts(module: nn.Module, *args: Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*args)
    return counter.get_total_flops() // 2


def test_what_is_thrown_away_counts_alike_in_budget_and_report_and_is_not_cut():
    model, x = ThrownAway().eval(), torch.randn(1, 3, 10, 10)
    result = compress(model, x, 0.4, round_to=1)
    before, after = (result.report[moment]["macs"] for moment in ("before", "after"))
    assert before == torch_counts(model, x)
    assert after == torch_counts(result.module, x) == result.report["budget"]["predicted"]["macs"]
    assert [layer.out_channels for layer in result.module.aux] == [16, 4]
    assert result.report["unread"]["layers"] == ["aux.0", "aux.1"]
    assert any("thrown away" in note for note in result.report["notes"])
    outputs = result.module.train()(torch.randn(2, 3, 10, 10))
    assert [tuple(output.shape) for output in outputs] == [(2, 4), (2, 4)]


@torch.library.custom_op("compressor_tests::doubled", mutates_args=())
def doubled(x: Tensor) -> Tensor:
    return 2 * x


@doubled.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


@pytest.mark.parametrize(
    ("function", "shapes", "operators"),
    [
        (lambda x: torch.fft.irfft(torch.fft.rfft(x)), [(2, 8)], ["fft_rfft", "fft_irfft"]),
        (torch.cdist, [(2, 3, 4), (2, 5, 4)], ["cdist"]),
        (lambda x: torch.linalg.inv(x), [(2, 3, 3)], ["linalg_inv"]),
        (lambda x: doubled(x), [(2, 3)], ["compressor_tests.doubled"]),
        (lambda x: torch.fft.fftshift(x.softmax(-1).cumsum(1)), [(2, 3)], []),
    ],
)
def test_work_without_a_formula_is_named(function, shapes, operators):
    examples = ExampleInputs(tuple(torch.randn(shape) for shape in shapes))
    network = analyse(trace(Functional(function), examples))
    assert [u.operator.removesuffix(".default") for u in network.uncounted] == operators
    assert [u.calls for u in network.uncounted] == [1] * len(operators)


@pytest.mark.parametrize(
    ("function", "shapes", "by_torch"),
    [
        (lambda x, w: torch.einsum("bij,o->bo", x, w), [(2, 4, 3), (5,)], True),
        (lambda x, w: torch.einsum("bc,c->bc", x, w), [(2, 4), (4,)], True),
        (lambda x, w: torch.inner(x, w), [(2, 4), (5, 4)], True),
        (lambda x, v, b: torch.addmv(b, x, v), [(4, 3), (3,), (4,)], False),
        (lambda x, w, b: torch.addbmm(b, x, w), [(2, 4, 3), (2, 3, 5), (4, 5)], False),
        (torch.dot, [(3,), (3,)], False),
        (
            lambda x, o, w: torchvision.ops.deform_conv2d(x, o, w, padding=1),
            [(2, 4, 5, 5), (2, 18, 5, 5), (6, 4, 3, 3)],
            False,
        ),
    ],
)
def test_equations_and_both_forms_count_alike(function, shapes, by_torch):
    module, args = Functional(function), tuple(torch.randn(shape) for shape in shapes)
    traced = trace(module, ExampleInputs(args), free_batch=False)
    expected = analyse(traced).cost.macs() * traced.batch
    assert_macs(module, args, expected)
    assert not by_torch or torch_counts(module, *args) == expected


def test_macs_with_keywords_and_an_output_that_is_no_tuple(capfd):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x, *, double=False, other):
            y = self.fc(x) + self.fc(other)
            return {"logits": y * 2 if double else y, "n": 3}

    kwargs = {"other": torch.randn(1, 4), "double": True}
    assert count_macs(Net(), (torch.randn(1, 4),), kwargs) == 24
    assert capfd.readouterr() == ("", "")


def test_macs_are_those_of_the_layer_that_computes_them() -> None:
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.shared = nn.Linear(4, 4)
            self.body = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))

        def forward(self, x):
            x = self.body(self.shared(self.shared(x)))
            return x @ x.T

    network = analyse(trace(Mixed().eval(), ExampleInputs((torch.randn(1, 4),))))
    found = {"": 4, "shared": 32, "body.0": 32, "body.2": 32}
    assert network.cost.macs_by_layer() == found


def test_macs_of_inputs_that_do_not_fit_are_a_clear_error_and_leave_no_trace():
    model = nn.Linear(4, 3)
    with pytest.raises(CompressorError, match="could not be counted"):
        count_macs(model, (torch.randn(1, 5),), {})
    assert not model._forward_hooks and not model._forward_pre_hooks


def test_params_count_tied_ones_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.out = nn.Embedding(10, 4), nn.Linear(4, 10)
            self.out.weight = self.embed.weight

        def forward(self, tokens):
            return self.out(self.embed(tokens))

    model = Tied()
    program = torch.export.export(model, (torch.zeros(2, dtype=torch.long),))
    assert count_params(model) == count_params(program.module()) == 50


def matmul_file(path: Path, size: int, repeats: int, dtype: int = TensorProto.FLOAT) -> Path:
    """An ONNX file whose work grows with `repeats`."""
    weight = np.eye(size, dtype=helper.tensor_dtype_to_np_dtype(dtype))
    nodes = [
        helper.make_node("MatMul", [f"x{i}" if i else "x", "w"], [f"x{i + 1}"])
        for i in range(repeats)
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", dtype, ["batch", size])],
        [helper.make_tensor_value_info(f"x{repeats}", dtype, ["batch", size])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return path


def test_latency_tells_the_slow_network_from_the_fast(tmp_path):
    models = {
        "fast": matmul_file(tmp_path / "fast.onnx", 64, 1),
        "slow": matmul_file(tmp_path / "slow.onnx", 256, 20),
    }
    start = time.perf_counter()
    found = measure_latency(models, threads=1, batch=4, seconds=0.4)
    assert time.perf_counter() - start < 10
    assert found["slow"].p50_ms > 2 * found["fast"].p50_ms > 0
    for latency in found.values():
        assert latency.p90_ms >= latency.p50_ms
        assert (latency.runtime, latency.device) == ("onnxruntime", "cpu")
        assert (latency.threads, latency.batch) == (1, 4)


@pytest.mark.parametrize(("large", "count"), [(0, 2), (10**9, 3)])
def test_a_large_file_under_two_names_is_opened_once(tmp_path, monkeypatch, large, count):
    opened = []

    def open_session(path, *how):
        opened.append(path.name)
        return onnx_runtime.open_session(path, *how)

    monkeypatch.setattr(networks, "open_session", open_session)
    monkeypatch.setattr(networks, "LARGE", large)
    one, other = (matmul_file(tmp_path / f"{name}.onnx", 64, 1) for name in ("one", "other"))
    found = measure_latency({"a": one, "b": other, "a again": one}, threads=1, seconds=0.05)
    assert all(latency.p50_ms > 0 for latency in found.values())
    assert len(found) == 3
    assert len(opened) == count


def test_latency_takes_integers_and_given_feeds(tmp_path):
    path = matmul_file(tmp_path / "int.onnx", 8, 1, TensorProto.INT32)
    assert measure_latency({"a": path}, threads=1, seconds=0.05)["a"].p50_ms > 0
    feeds = {"x": np.ones((3, 8), np.int32)}
    assert measure_latency({"a": path}, feeds=feeds, threads=1, seconds=0.05)["a"].p50_ms > 0


def test_latency_of_bad_input_is_a_clear_error(tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(CompressorError, match="could not run") as caught:
        measure_latency({"a": broken}, threads=1, seconds=0.05)
    assert str(broken) in str(caught.value)
    good = matmul_file(tmp_path / "good.onnx", 8, 1)
    with pytest.raises(CompressorError, match="'x' that was not given"):
        measure_latency({"a": good}, feeds={"y": np.ones(3)}, threads=1, seconds=0.05)
    with pytest.raises(CompressorError, match="could not run"):
        measure_latency({"a": good}, feeds={"x": np.ones((1, 9), np.float32)}, seconds=0.05)
    with pytest.raises(UsageError, match="at least one thread"):
        measure_latency({"a": good}, threads=0)
