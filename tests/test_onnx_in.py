"""ONNX files as MODEL: read, proved, made smaller like their masked twin, and written back into
their own graph."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from cases import Case
from onnx import TensorProto, helper, numpy_helper
from onnx_files import FLOAT, INT64, export, graph, perceptron, run, save
from test_blocks import Samples, blocky
from torch import Tensor, nn
from twin import Analysed, masked_twin, random_keep

import compressor
from compressor.cli import main
from compressor.errors import CompressorError
from compressor.formats.own_routes import own_routes
from compressor.formats.verifying import write_and_verify
from compressor.graph.analysis import analyse
from compressor.graph.network import Network
from compressor.graph.trace import trace
from compressor.loading import load_model
from compressor.loading.onnx.onnx_network import OnnxNetwork
from compressor.loading.onnx.operators import ENTRIES
from compressor.records import LoadedModel, Trace
from compressor.slicing import Sliced, slice_network


class ConvNet(nn.Module):
    """Convolutions with norms, groups, a shortcut, a concatenation and resizing."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6())
        self.wide = nn.Sequential(nn.Conv2d(8, 16, 1), nn.Hardswish())
        self.deep = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16))
        self.back = nn.Conv2d(16, 8, 1)
        self.up = nn.ConvTranspose2d(16, 6, 2, 2)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = x + self.back(self.deep(self.wide(x)))
        z = nn.functional.max_pool2d(torch.cat([x, y], 1), 2)
        z = nn.functional.interpolate(self.up(z), scale_factor=2.0)
        return self.head(nn.functional.leaky_relu(z).mean((2, 3)))


class Attention(nn.Module):
    """Token ids, attention in heads written out, a layer norm and a perceptron."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(20, 16), nn.Parameter(torch.randn(1, 7, 16))
        self.qkv, self.out, self.norm = nn.Linear(16, 48), nn.Linear(16, 16), nn.LayerNorm(16)
        self.up, self.down, self.head = nn.Linear(16, 24), nn.Linear(24, 16), nn.Linear(16, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.places
        n, t, c = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, t, 3, 4, 4).permute(2, 0, 3, 1, 4)
        share = torch.softmax(q @ k.transpose(-2, -1) / 2, -1)
        x = x + self.out((share @ v).transpose(1, 2).reshape(n, t, c))
        x = x + self.down(nn.functional.gelu(self.up(x)))
        return self.head(x.mean(1))


class Recurrent(nn.Module):
    """A recurrent layer in both directions, and one behind it."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.cells: Any = kind(6, 8, 2, batch_first=True, bidirectional=True)  # type: ignore[call-arg]
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cells(x)[0][:, -1])


IMAGE, TOKENS = torch.randn(2, 3, 8, 8), torch.randint(0, 20, (2, 7))
STEPS = torch.randn(2, 5, 6)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "convolutions": (ConvNet, IMAGE),
    "attention": (Attention, TOKENS),
    "lstm": (lambda: Recurrent(nn.LSTM), STEPS),
    "gru": (lambda: Recurrent(nn.GRU), STEPS),
}
FAST = [("convolutions", None), ("convolutions", 11), ("attention", None), ("attention", 13)]
FAST += [("lstm", 17), ("gru", 17)]
OTHERS = [(n, o) for n in NETWORKS for o in (None, 11, 13, 17) if (n, o) not in FAST]


def enliven(model: nn.Module) -> nn.Module:
    """Give norms statistics and scales of their own, so that no two tensors are equal."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.dim() == 1 and tensor.is_floating_point():
                drawn = torch.rand(tensor.shape, generator=generator)
                tensor.copy_(drawn + 0.5 if "var" in name or "weight" in name else drawn - 0.5)
    return model


def read(path: Path) -> tuple[LoadedModel, Trace, Network]:
    loaded = load_model(str(path))
    assert loaded.examples is not None
    traced = trace(loaded.module, loaded.examples)
    return loaded, traced, analyse(traced)


def cut(traced: Trace, network: Network) -> Sliced:
    return slice_network(traced, network, random_keep(network, seed=0))


@pytest.mark.parametrize(
    ("name", "opset"), [*FAST, *(pytest.param(*each, marks=pytest.mark.slow) for each in OTHERS)]
)
def test_a_file_becomes_smaller_like_its_masked_twin(
    name: str, opset: int | None, tmp_path: Path
) -> None:
    build, x = NETWORKS[name]
    torch.manual_seed(0)
    path = export(enliven(build()), [x], tmp_path / "net.onnx", opset)
    _, traced, network = read(path)
    assert traced.batch_symbol is not None
    assert network.groups
    keep = random_keep(network, seed=0)
    sliced = slice_network(traced, network, keep)
    assert sliced.plan.form == "class" and not sliced.plan.stand_ins
    (route,) = own_routes(sliced.module)
    out = tmp_path / "smaller.onnx"
    write_and_verify(sliced.program, out, traced, [route])
    assert out.stat().st_size < path.stat().st_size
    before, after = onnx.load(str(path)), onnx.load(str(out))
    assert after.opset_import == before.opset_import
    assert (list(after.graph.input), list(after.graph.output)) == (
        list(before.graph.input),
        list(before.graph.output),
    )
    case = Case(build, tuple(x.shape[1:]))
    twin = masked_twin(Analysed(case, traced.module, traced, network), keep)
    more = torch.cat([x, x.flip(0)])[:3]
    (found,) = run(out, more)
    np.testing.assert_allclose(found, twin(more).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_the_whole_network_is_written_back_as_it_was(tmp_path: Path) -> None:
    path = export(enliven(ConvNet()), [IMAGE], tmp_path / "net.onnx", 17)
    _, traced, _ = read(path)
    (route,) = own_routes(traced.module)
    out = tmp_path / "same.onnx"
    write_and_verify(traced.program, out, traced, [route])
    np.testing.assert_array_equal(run(path, IMAGE)[0], run(out, IMAGE)[0])


def test_names_of_tensors_are_the_files_own(tmp_path: Path) -> None:
    loaded, _, network = read(save(perceptron(), tmp_path / "net.onnx"))
    assert {name for name, _ in loaded.module.named_parameters()} == {
        *("dense.kernel_0", "dense.bias_0", "head.kernel_0"),
    }
    (group,) = network.groups
    assert group.name == "dense.kernel_0:0" and group.size == 12


def test_products_with_stored_weights_can_be_fitted(tmp_path: Path) -> None:
    """MatMul and Add are one linear layer, whose bias takes what a constant makes up for."""
    from compressor.least_squares.consumers import consumers

    _, traced, _ = read(save(perceptron(), tmp_path / "net.onnx"))
    found = {c.tensor: c.constant for c in consumers(traced.program, {})}
    assert found == {"dense.kernel_0": "dense.bias_0", "head.kernel_0": ""}


def test_the_command_keeps_names_types_and_what_the_file_says(tmp_path: Path) -> None:
    model = perceptron()
    model.graph.input[0].name = model.graph.node[0].input[0] = "x:0"
    model.metadata_props.add(key="labels", value="cat,dog,cow")
    path, out = save(model, tmp_path / "net.onnx"), tmp_path / "out"
    command = ["compress", str(path), "--ratio", "0.5", "--round-to", "1", "--out", str(out)]
    assert main(command[1:]) == 0
    written = onnx.load(str(out / "model.onnx"))
    assert [entry.name for entry in written.graph.input] == ["x:0"]
    assert written.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert written.opset_import[0].version == 17
    said = {entry.key: entry.value for entry in written.metadata_props}
    assert said["labels"] == "cat,dog,cow" and "compress.plan.sha256" in said
    report = json.loads((out / "report.json").read_text())
    assert report["after"]["macs"] <= 0.51 * report["before"]["macs"]
    x = torch.randn(4, 6)
    again = compressor.load(out, str(path))
    np.testing.assert_allclose(
        run(out / "model.onnx", x)[0], again(x).detach().numpy(), rtol=1e-4, atol=1e-5
    )
    replay = ["--plan", str(out / "plan.json"), "--format", "pt2", "--out", str(tmp_path / "b")]
    assert main([str(path), *replay]) == 0


def any_size() -> onnx.ModelProto:
    """A classifier of images of any size, with names that are no words of Python's."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    model = graph(
        [
            helper.make_node("Conv", ["x:0", "w1"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("GlobalAveragePool", ["r"], ["m"]),
            helper.make_node("Flatten", ["m"], ["f"]),
            helper.make_node("Gemm", ["f", "w2"], ["scores:0"]),
        ],
        {"w1": draw(8, 3, 3, 3), "w2": draw(8, 5)},
        inputs={"x:0": (FLOAT, ["n", 3, "h", "w"])},
        outputs={"scores:0": 2},
    )
    model.metadata_props.add(key="labels", value="cat,dog,cow")
    return model


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in half precision."""
    for tensor in model.graph.initializer:
        half = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    for entry in (*model.graph.input, *model.graph.output):
        entry.type.tensor_type.elem_type = TensorProto.FLOAT16
    return model


@pytest.mark.parametrize("model", [any_size(), halved(any_size())], ids=["float", "half"])
def test_another_version_keeps_what_the_file_declares(
    model: onnx.ModelProto, tmp_path: Path
) -> None:
    path, out = save(model, tmp_path / "net.onnx"), tmp_path / "out"
    size = ["--input", "2x3x8x8", "--round-to", "1"]
    assert main([str(path), "--ratio", "0.5", *size, "--out", str(out)]) == 0
    assert main(["export", str(out), "--opset", "18"]) == 0
    written = onnx.load(out / "model_opset18.onnx")
    assert [entry.version for entry in written.opset_import] == [18]
    assert list(written.graph.input) == list(model.graph.input)
    assert [o.name for o in written.graph.output] == ["scores:0"]
    assert {"labels", "compress.plan.sha256"} <= {e.key for e in written.metadata_props}
    kinds = {tensor.data_type for tensor in written.graph.initializer}
    assert kinds == {model.graph.initializer[0].data_type}
    assert main(["export", str(out), "--batch", "2"]) == 0
    fixed = onnx.load(out / "model_b2.onnx").graph
    assert [fixed.input[0].name, fixed.output[0].name] == ["x:0", "scores:0"]


def test_half_precision_is_computed_in_float32_and_written_as_it_came(tmp_path: Path) -> None:
    loaded, traced, network = read(save(halved(perceptron()), tmp_path / "net.onnx"))
    assert {p.dtype for p in loaded.module.parameters()} == {torch.float32}
    assert set(loaded.stored.values()) == {torch.float16}
    sliced = cut(traced, network)
    out = tmp_path / "smaller.onnx"
    write_and_verify(sliced.program, out, traced, own_routes(sliced.module))
    written = onnx.load(str(out))
    assert {tensor.data_type for tensor in written.graph.initializer} == {TensorProto.FLOAT16}
    assert written.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT16


def test_what_branches_and_post_processing_touch_is_kept(tmp_path: Path) -> None:
    """TopK, Cast and a branch that a shape chooses; the layer before them still shrinks."""
    model = perceptron()
    nodes = model.graph.node
    nodes[3].output[0] = "scores"
    branch = lambda name, value: helper.make_graph(  # noqa: E731
        [helper.make_node("Mul", ["scores", value], [name])],
        name,
        [],
        [helper.make_tensor_value_info(name, FLOAT, [None, None])],
    )
    nodes.extend(
        [
            helper.make_node("Shape", ["scores"], ["shape"]),
            helper.make_node("Gather", ["shape", "one"], ["width"], axis=0),
            helper.make_node("Equal", ["width", "three"], ["is_three"]),
            helper.make_node(
                *("If", ["is_three"], ["scaled"]),
                then_branch=branch("doubled", "two"),
                else_branch=branch("same", "unit"),
            ),
            helper.make_node("TopK", ["scaled", "k"], ["best", "places"], axis=-1),
            helper.make_node("Cast", ["places"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("Concat", ["best", "numbers"], ["out"], axis=1),
        ]
    )
    for name, value in {
        "one": np.array(1),
        "three": np.array(3),
        "k": np.array([2]),
        "two": np.float32(2),
        "unit": np.float32(1),
    }.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    _, traced, network = read(save(model, tmp_path / "net.onnx"))
    assert [group.size for group in network.groups] == [12]
    sliced = cut(traced, network)
    write_and_verify(sliced.program, tmp_path / "s.onnx", traced, own_routes(sliced.module))


def test_a_batch_that_the_file_fixes_stays_fixed(tmp_path: Path) -> None:
    model = perceptron()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    _, traced, network = read(save(model, tmp_path / "net.onnx"))
    sliced = cut(traced, network)
    out = tmp_path / "smaller.onnx"
    write_and_verify(sliced.program, out, traced, own_routes(sliced.module))
    assert onnx.load(str(out)).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1


def test_places_stay_within_the_table_that_they_index(tmp_path: Path) -> None:
    path = export(Attention(), [TOKENS], tmp_path / "net.onnx", 13)
    loaded = load_model(str(path))
    assert loaded.examples is not None
    (ids,) = loaded.examples.args
    assert ids.dtype == torch.int64 and 1 < ids.max() < 20


def test_a_wrong_reading_names_the_first_node_that_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENTRIES, "Relu", lambda call: torch.relu(call.x) * 1.01)
    with pytest.raises(CompressorError, match=r"the node relu \(Relu\)"):
        load_model(str(save(perceptron(), tmp_path / "net.onnx")))


def _unary(op: str, opset: int, constants: Sequence[Any] = (), **attributes: Any) -> Any:
    names = [f"c{i}" if value is not None else "" for i, value in enumerate(constants)]
    node = helper.make_node(op, ["x", *names], ["out"], **attributes)
    held = {name: value for name, value in zip(names, constants, strict=True) if name}
    return node, held, opset


I = lambda *values: np.array(values, np.int64)  # noqa: E731, E741
F = lambda *values: np.array(values, np.float32)  # noqa: E731
VERSIONS: dict[str, tuple[Any, int]] = {
    "squeeze 11": (_unary("Squeeze", 11, axes=[1]), 2),
    "squeeze 13": (_unary("Squeeze", 13, [I(1)]), 2),
    "unsqueeze 11": (_unary("Unsqueeze", 11, axes=[0, -1]), 5),
    "unsqueeze 13": (_unary("Unsqueeze", 13, [I(0, -1)]), 5),
    "reduce mean 11": (_unary("ReduceMean", 11, axes=[-1], keepdims=0), 2),
    "reduce mean 18": (_unary("ReduceMean", 18, [I(-1)], keepdims=0), 2),
    "reduce sum 9": (_unary("ReduceSum", 9, axes=[2]), 3),
    "reduce sum 13": (_unary("ReduceSum", 13, [I(2)]), 3),
    "clip 9": (_unary("Clip", 9, min=-0.5, max=0.5), 3),
    "clip 13": (_unary("Clip", 13, [np.float32(-0.5), np.float32(0.5)]), 3),
    "slice 9": (_unary("Slice", 9, starts=[1], ends=[4], axes=[2]), 3),
    "slice 13": (_unary("Slice", 13, [I(4), I(0), I(2), I(-2)]), 3),
    "pad 9": (_unary("Pad", 9, pads=[0, 0, 1, 0, 0, 2], value=2.0), 3),
    "pad 18": (_unary("Pad", 18, [I(1, 2), None, I(2)], mode="edge"), 3),
    "softmax 11": (_unary("Softmax", 11, axis=1), 3),
    "softmax 13": (_unary("Softmax", 13, axis=1), 3),
    "log softmax 11": (_unary("LogSoftmax", 11, axis=1), 3),
    "tile": (_unary("Tile", 13, [I(1, 2, 1)]), 3),
    "expand": (_unary("Expand", 13, [I(3, 1, 1, 5)]), 4),
    "flatten": (_unary("Flatten", 13, axis=2), 2),
    "cumulate": (_unary("CumSum", 14, [np.array(2)], exclusive=1, reverse=1), 3),
    "arg max": (_unary("ArgMax", 13, axis=2, keepdims=0), 2),
    "triangle": (_unary("Trilu", 14, upper=0), 3),
    "gather": (_unary("Gather", 13, [I(3, 0, -1)], axis=2), 3),
    "layer norm": (_unary("LayerNormalization", 17, [np.ones(5, np.float32)], axis=-1), 3),
    "gelu": (_unary("Gelu", 20, approximate="tanh"), 3),
    "hard sigmoid": (_unary("HardSigmoid", 13, alpha=0.3), 3),
    "identity of a shape": (_unary("Reshape", 13, [I(0, -1)]), 2),
}


@pytest.mark.parametrize("name", VERSIONS)
def test_versions_of_operators_compute_what_onnx_runtime_does(name: str, tmp_path: Path) -> None:
    (node, constants, opset), rank = VERSIONS[name]
    outputs: dict[str, int] = {"out": rank}
    model = graph(
        [node], constants, inputs={"x": (FLOAT, ["n", 1, 5])}, outputs=outputs, opset=opset
    )
    if node.op_type == "ArgMax":
        model.graph.output[0].type.tensor_type.elem_type = INT64
    loaded = load_model(str(save(model, tmp_path / "net.onnx")))
    assert isinstance(loaded.module, OnnxNetwork)  # which was compared, or loading had raised


RESIZES = [
    {"mode": mode, "coordinate_transformation_mode": way}
    for mode in ("nearest", "linear", "cubic")
    for way in ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel")
]


@pytest.mark.parametrize("way", RESIZES, ids=lambda way: " ".join(way.values()))
@pytest.mark.parametrize("factor", [2.0, 1.5, 0.6])
def test_resizing_computes_what_onnx_runtime_does(
    way: dict[str, str], factor: float, tmp_path: Path
) -> None:
    node = helper.make_node("Resize", ["x", "", "scales"], ["out"], **way)
    scales = {"scales": F(1, 1, factor, factor)}
    inputs = {"x": (FLOAT, ["n", 2, 5, 6])}
    model = graph([node], scales, inputs=inputs, outputs=4, opset=13)
    loaded = load_model(str(save(model, tmp_path / "net.onnx")))
    assert isinstance(loaded.module, OnnxNetwork)  # which was compared, or loading had raised


def test_what_stands_before_suppressed_boxes_shrinks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "w2"], ["h"]),
        helper.make_node("Reshape", ["h", "shape"], ["flat"]),
        helper.make_node("Split", ["flat", "sizes"], ["b", "s"], axis=1),
        helper.make_node("Transpose", ["b"], ["boxes"], perm=[0, 2, 1]),
        helper.make_node("Sigmoid", ["s"], ["scores"]),
        helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "iou"], ["kept"]),
    ]
    constants = {"w1": draw(8, 3, 3, 3), "w2": draw(6, 8, 1, 1), "shape": I(1, 6, 64)}
    constants |= {"sizes": I(4, 2), "most": I(5), "iou": F(0.5)}
    inputs = {"x": (FLOAT, [1, 3, 8, 8])}
    model = graph(nodes, constants, inputs=inputs, outputs={"kept": 2, "scores": 3})
    model.graph.output[0].type.tensor_type.elem_type = INT64
    _, traced, network = read(save(model, tmp_path / "net.onnx"))
    assert [group.size for group in network.groups] == [8]
    sliced = cut(traced, network)
    write_and_verify(sliced.program, tmp_path / "s.onnx", traced, own_routes(sliced.module))


def one_hot(count: int) -> onnx.ModelProto:
    """A classifier of bytes as tf2onnx writes it: a one-hot code, a slice to the end."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    return graph(
        [
            helper.make_node("Unsqueeze", ["bytes", "last"], ["a"]),
            helper.make_node("Equal", ["a", "codes"], ["b"]),
            helper.make_node("Cast", ["b"], ["c"], to=FLOAT),
            helper.make_node("MatMul", ["c", "dense"], ["d"]),
            helper.make_node("Relu", ["d"], ["e"]),
            helper.make_node("Slice", ["e", "first", "end", "first"], ["f"]),
            helper.make_node("ReduceMean", ["f"], ["g"], axes=[1], keepdims=0),
            helper.make_node("MatMul", ["g", "head"], ["out"]),
        ],
        {
            "last": np.array([2]),
            "first": np.array([0]),
            "end": np.array([1_000_000_000]),
            "codes": np.arange(count, dtype=np.int32).reshape(1, 1, count),
            "dense": draw(count, 16),
            "head": draw(16, 3),
        },
        inputs={"bytes": (TensorProto.INT32, ["batch", 10])},
    )


def test_a_one_hot_code_says_how_large_its_inputs_are(tmp_path: Path) -> None:
    path = save(one_hot(200), tmp_path / "bytes.onnx")
    found = compressor.compress(str(path), ratio=0.4, format="onnx", protect=("codes",))
    loaded = load_model(str(path))
    example = trace(loaded.module, loaded.examples)
    assert example.examples.args[0].max() > 100 and example.batch_symbol is not None
    found.save(tmp_path / "result")
    x = torch.randint(200, (3, 10), dtype=torch.int32)
    (written,) = run(tmp_path / "result" / "model.onnx", x)
    with torch.no_grad():
        assert np.allclose(written, found.module(x).numpy(), atol=1e-5)


@pytest.mark.slow
def test_a_file_without_some_blocks_keeps_its_names(tmp_path: Path) -> None:
    path = export(blocky(), [torch.randn(2, 3, 8, 8)], tmp_path / "net.onnx", 17)
    options = {"ratio": 0.3, "prune": "block", "search": 3, "round_to": 16, "calibration": 256}
    found = compressor.compress(str(path), data=Samples(), batch_size=16, format="onnx", **options)
    assert found.plan.removal is not None
    found.save(tmp_path / "result")
    written = onnx.load(tmp_path / "result" / "model.onnx")
    assert [entry.name for entry in written.graph.output] == ["out"]
    assert written.opset_import[0].version == 17


def test_samples_say_the_sizes_that_the_file_leaves_free(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    model = graph(
        [
            helper.make_node("Conv", ["x", "a.weight"], ["a"]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Conv", ["b", "c.weight"], ["out"]),
        ],
        {"a.weight": draw(8, 3, 3, 3), "c.weight": draw(4, 8, 3, 3)},
        inputs={"x": (FLOAT, ["n", 3, "h", "w"])},
        outputs=4,
    )
    path = save(model, tmp_path / "net.onnx")
    result = compressor.compress(
        str(path), data=list(torch.randn(24, 3, 12, 20)), ratio=0.4, round_to=1, format=("onnx",)
    )
    (given,) = result.report["examples"]["inputs"]
    assert given["shape"][1:] == [3, 12, 20]
    result.save(tmp_path / "result")
    (out,) = run(tmp_path / "result" / "model.onnx", torch.randn(2, 3, 9, 31))
    assert out.shape == (2, 4, 5, 27)
