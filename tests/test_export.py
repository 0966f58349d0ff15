"""Files that people deploy: right, the same every time, and silent about where they were made."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from compressor import compress
from compressor.agreement import INT8
from compressor.errors import CompressorError
from compressor.formats import export_onnx, save_program, save_weights, user_inputs, verify_onnx

BATCH = torch.export.Dim("b", min=1)
SOURCE = re.compile(rb"\.py|File \\?\"|/(?:root|home|usr|tmp|site-packages)/")


class TinyNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.bn = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 4)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.drop(self.bn(self.conv(image)).relu()).mean((2, 3)))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mha = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, tokens: Tensor, *, scale: Tensor) -> tuple[Tensor, Tensor]:
        out, weights = self.mha(tokens, tokens, tokens)
        return out * scale, weights


def tiny_program() -> torch.export.ExportedProgram:
    torch.manual_seed(0)
    return torch.export.export(
        TinyNet().eval(), (torch.randn(2, 3, 8, 8),), dynamic_shapes=({0: BATCH},)
    )


def batch_symbol(program: torch.export.ExportedProgram) -> str:
    inputs = [n for n in program.graph.nodes if n.name in program.graph_signature.user_inputs]
    return str(inputs[0].meta["val"].shape[0])


@pytest.fixture(scope="module")
def program() -> torch.export.ExportedProgram:
    return tiny_program()


@pytest.fixture(scope="module")
def onnx_path(program, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(program, path, batch_symbol=batch_symbol(program))
    return path


def cases(program, *batch_sizes):
    """Inputs by name and the program's outputs for each batch size."""
    module = program.module()
    made = []
    for size in batch_sizes:
        x = torch.randn(size, 3, 8, 8)
        with torch.no_grad():
            made.append((user_inputs(program, (x,), {}), [module(x)]))
    return made


def assert_no_source(content: bytes) -> None:
    found = SOURCE.search(content)
    assert found is None, content[max(0, found.start() - 40) : found.end() + 40]


# ONNX


def test_onnx_computes_the_same_for_every_batch_size(program, onnx_path):
    assert verify_onnx(onnx_path, cases(program, 1, 2, 5)) < 1e-5


def test_onnx_has_the_programs_input_and_a_batch_by_name(onnx_path):
    graph = onnx.load(onnx_path).graph
    assert [i.name for i in graph.input] == ["image"]
    for value in (graph.input[0], graph.output[0]):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    onnx.checker.check_model(str(onnx_path), full_check=True)
    assert [p.name for p in onnx_path.parent.iterdir()] == ["model.onnx"]


def test_onnx_with_a_static_batch_has_numbers_alone(tmp_path):
    program = torch.export.export(TinyNet().eval(), (torch.randn(2, 3, 8, 8),))
    export_onnx(program, tmp_path / "m.onnx", batch_symbol=None)
    shape = onnx.load(tmp_path / "m.onnx").graph.input[0].type.tensor_type.shape
    assert [d.dim_value for d in shape.dim] == [2, 3, 8, 8]


def test_onnx_of_attention_with_keywords_and_two_outputs(tmp_path):
    torch.manual_seed(0)
    model = Attention().eval()
    tokens, scale = torch.randn(2, 5, 8), torch.tensor(3.0)
    program = torch.export.export(
        model, (tokens,), {"scale": scale}, dynamic_shapes={"tokens": {0: BATCH}, "scale": None}
    )
    path = tmp_path / "m.onnx"
    export_onnx(program, path, batch_symbol=batch_symbol(program))
    made = []
    for size in (2, 3):
        x = torch.randn(size, 5, 8)
        with torch.no_grad():
            outputs = model(x, scale=scale)
        made.append((user_inputs(program, (x,), {"scale": scale}), outputs))
    assert set(made[0][0]) == {"tokens", "scale"}
    assert verify_onnx(path, made) < 1e-5
    assert_no_source(path.read_bytes())


@pytest.mark.parametrize("masked", ["no", "causal", "boolean", "added"])
@pytest.mark.parametrize("lead", [(), (2,), (2, 3, 2)], ids=["3d", "4d", "5d"])
def test_onnx_of_attention_over_any_number_of_dimensions(tmp_path, lead, masked):
    class Fused(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x.reshape(-1, *lead, 5, 8)
            mask = {"boolean": torch.ones(5, 5).tril(1).bool(), "added": torch.eye(5)}.get(masked)
            causal = masked == "causal"
            return nn.functional.scaled_dot_product_attention(x, x, x, mask, is_causal=causal)

    torch.manual_seed(0)
    inputs = [torch.randn(12, 5, 8) for _ in range(2)]
    fused = torch.export.export(Fused(), (inputs[0],))
    export_onnx(fused, tmp_path / "net.onnx", batch_symbol=None)
    cases = [({"x": x}, [Fused()(x)]) for x in inputs]
    assert verify_onnx(tmp_path / "net.onnx", cases) < 1e-5


def test_onnx_tells_nothing_of_the_source_but_keeps_layer_names(program, onnx_path):
    assert any("stack_trace" in node.meta for node in program.graph.nodes)
    content = onnx_path.read_bytes()
    assert_no_source(content)
    assert b"conv.weight" in content and b"'head'" in content


def test_onnx_is_the_same_file_every_time(program, onnx_path, tmp_path):
    export_onnx(program, tmp_path / "again.onnx", batch_symbol=batch_symbol(program))
    assert (tmp_path / "again.onnx").read_bytes() == onnx_path.read_bytes()


def test_onnx_says_of_itself_what_it_is_given_in_order(program, tmp_path):
    for number, given in enumerate(({"b": "2", "a": "1"}, {"a": "1", "b": "2"})):
        path = tmp_path / f"{number}.onnx"
        export_onnx(program, path, batch_symbol=batch_symbol(program), metadata=given)
    assert (tmp_path / "0.onnx").read_bytes() == (tmp_path / "1.onnx").read_bytes()
    props = onnx.load(tmp_path / "0.onnx").metadata_props
    assert [(entry.key, entry.value) for entry in props] == [("a", "1"), ("b", "2")]


def test_onnx_export_is_silent(program, tmp_path, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_onnx(program, tmp_path / "m.onnx", batch_symbol=batch_symbol(program))
        save_program(program, tmp_path / "m.pt2")
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == 0


def test_weights_too_large_for_one_file_lie_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr("compressor.formats.onnx_file._PROTO_LIMIT", 100)
    model, xs, path = nn.Linear(64, 64), torch.randn(2, 2, 64), tmp_path / "m.onnx"
    program = torch.export.export(model, (xs[0],))
    for _ in range(2):
        export_onnx(program, path, batch_symbol=None)
    assert path.stat().st_size < 64 * 64 * 4 <= (tmp_path / "m.onnx.data").stat().st_size < 20_000
    assert verify_onnx(path, [(user_inputs(program, (x,), {}), [model(x)]) for x in xs]) < 1e-5


def test_what_onnx_cannot_express_is_a_clear_error(tmp_path):
    class Special(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.special.airy_ai(x)

    program = torch.export.export(Special(), (torch.randn(2, 3),))
    with pytest.raises(CompressorError, match=r"cannot be written as ONNX.*airy_ai"):
        export_onnx(program, tmp_path / "m.onnx", batch_symbol=None)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_a_clear_error(program, tmp_path):
    path = tmp_path / "gone" / "m"
    for write in (
        lambda: export_onnx(program, path, batch_symbol=batch_symbol(program)),
        lambda: save_program(program, path),
        lambda: save_weights(program.state_dict, path, {}),
    ):
        with pytest.raises(CompressorError, match="cannot be written") as caught:
            write()
        assert str(path) in str(caught.value)


# verification


def test_a_file_that_computes_something_else_is_found(program, onnx_path):
    wrong = [(feeds, [y + 0.01 * y.abs().max()]) for feeds, (y,) in cases(program, 1, 2)]
    assert 0.01 < verify_onnx(onnx_path, wrong, INT8) < 1
    with pytest.raises(CompressorError, match=r"differ by .* output 0 at \[\d, \d\]: "):
        verify_onnx(onnx_path, wrong)


def test_outputs_of_another_shape_or_number_are_found(program, onnx_path):
    good = cases(program, 1, 2)
    for outputs in ([good[0][1][0][:, :3]], good[0][1] * 2):
        with pytest.raises(CompressorError, match="outputs have shapes"):
            verify_onnx(onnx_path, [(good[0][0], outputs), good[1]])


def test_the_smallest_output_counts_as_much_as_the_largest(tmp_path):
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return 1e6 * x, x + 0

    program = torch.export.export(Two(), (torch.randn(2, 3),))
    export_onnx(program, tmp_path / "m.onnx", batch_symbol=None)
    xs = torch.randn(2, 2, 3)
    made = [({"x": x}, [1e6 * x, x * 1.01]) for x in xs]
    with pytest.raises(CompressorError, match=r"differ by .* output 1 at"):
        verify_onnx(tmp_path / "m.onnx", made)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: y * 0, "equal for different inputs"),
        (lambda y: y * 1e-6 + 3, "equal for different inputs"),
        (lambda y: torch.arange(y.numel()).view(y.shape), "equal for different inputs"),
        (lambda y: y * float("nan"), "no output of the network is finite"),
    ],
)
def test_a_comparison_on_a_dead_network_is_an_error(program, onnx_path, change, message):
    dead = [(feeds, [change(y)]) for feeds, (y,) in cases(program, 2, 2)]
    with pytest.raises(CompressorError, match=message):
        verify_onnx(onnx_path, dead)


def test_one_case_or_none_shows_nothing(program, onnx_path):
    for some in ([], cases(program, 2)):
        with pytest.raises(CompressorError, match="two different inputs"):
            verify_onnx(onnx_path, some)


def test_a_file_that_does_not_run_is_a_clear_error(program, onnx_path, tmp_path):
    (tmp_path / "broken.onnx").write_bytes(onnx_path.read_bytes()[:200])
    good = cases(program, 1, 2)
    with pytest.raises(CompressorError, match="could not run"):
        verify_onnx(tmp_path / "broken.onnx", good)
    wrong = [({"image": np.zeros((1, 4, 8, 8), np.float32)}, outputs) for _, outputs in good]
    with pytest.raises(CompressorError, match="could not run"):
        verify_onnx(onnx_path, wrong)


# torch.export archive


def test_the_program_comes_back_and_computes_the_same(program, tmp_path):
    save_program(program, tmp_path / "m.pt2")
    back = torch.export.load(tmp_path / "m.pt2")
    x = torch.randn(3, 3, 8, 8)
    assert torch.equal(back.module()(x), program.module()(x))
    stacks = [n.meta.get("nn_module_stack") for n in back.graph.nodes if n.op == "call_function"]
    assert any("head" in str(stack) for stack in stacks)


def test_the_program_tells_nothing_of_its_source_and_keeps_it_itself(program, tmp_path):
    before = [node.meta.get("stack_trace") for node in program.graph.nodes]
    assert any(before)
    save_program(program, tmp_path / "m.pt2")
    assert_no_source((tmp_path / "m.pt2").read_bytes())
    assert [node.meta.get("stack_trace") for node in program.graph.nodes] == before


WRITE = """
import sys, warnings; warnings.simplefilter("ignore")
sys.path[:0] = {path!r}
from pathlib import Path
from test_export import batch_symbol, tiny_program
from compressor.formats import export_onnx, save_program
program = tiny_program()
folder = Path(sys.argv[1])
export_onnx(program, folder / "x.onnx", batch_symbol=batch_symbol(program))
save_program(program, folder / "other.name")
"""


@pytest.mark.slow
def test_files_are_the_same_from_another_process(program, onnx_path, tmp_path):
    save_program(program, tmp_path / "m.pt2")
    code = WRITE.format(path=[str(Path(__file__).parent), *sys.path])
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    for ours, theirs in ((onnx_path, "x.onnx"), (tmp_path / "m.pt2", "other.name")):
        assert ours.read_bytes() == (tmp_path / theirs).read_bytes(), theirs


# weights


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(10, 4), nn.Linear(4, 10)
        self.out.weight = self.embed.weight


def test_weights_come_back_exactly(tmp_path):
    model = TinyNet()
    assert save_weights(model, tmp_path / "w", {}) == {}
    back = load_file(tmp_path / "w")
    assert back.keys() == model.state_dict().keys()
    assert all(torch.equal(back[name], value) for name, value in model.state_dict().items())
    with safe_open(tmp_path / "w", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_tied_weights_are_stored_once_under_the_given_or_the_first_name(tmp_path):
    given = save_weights(Tied(), tmp_path / "a", {"embed.weight": "out.weight"})
    assert given == {"embed.weight": "out.weight"}
    assert load_file(tmp_path / "a").keys() == {"out.weight", "out.bias"}
    found = save_weights(Tied(), tmp_path / "b", {})
    assert found == {"out.weight": "embed.weight"}
    assert load_file(tmp_path / "b").keys() == {"embed.weight", "out.bias"}


def test_aliases_of_separate_equal_copies_are_stored_once(tmp_path):
    tensors = {"a": torch.arange(6.0), "b": torch.arange(6.0)}
    assert save_weights(tensors, tmp_path / "w", {"b": "a"}) == {"b": "a"}
    assert load_file(tmp_path / "w").keys() == {"a"}


def test_views_of_one_memory_keep_their_own_values(tmp_path):
    base = torch.arange(12.0).view(3, 4)
    tensors = {"whole": base, "part": base[1:], "turned": base.t()}
    assert save_weights(tensors, tmp_path / "w", {}) == {}
    back = load_file(tmp_path / "w")
    assert all(torch.equal(back[name], value) for name, value in tensors.items())


def test_aliases_that_are_not_the_same_are_refused(tmp_path):
    tensors = {"a": torch.zeros(3), "b": torch.ones(3)}
    for stored in ("a", "gone"):
        with pytest.raises(CompressorError, match=f"not the same as {stored}"):
            save_weights(tensors, tmp_path / "w", {"b": stored})
    assert list(tmp_path.iterdir()) == []


class Branching(nn.Module):
    """Its forward goes on as a value decides."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.more, self.out = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        if x.sum() > 0:
            x = self.more(x).relu()
        return self.out(x)


def test_the_branch_that_was_captured_is_written_as_onnx(tmp_path: Path) -> None:
    result = compress(Branching(), torch.randn(4, 6), 0.3, round_to=1)
    result.save(tmp_path / "out")
    assert (tmp_path / "out" / "model.onnx").is_file()
    assert result.report["differences"]["program and ONNX file"] < 1e-4


def test_operators_are_looked_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that become ONNX once per process, those that are made of others once per file."""
    registration = pytest.importorskip("torch.onnx._internal.exporter._registration")
    utils = pytest.importorskip("torch._export.utils")
    built, asked = [], []
    build, ask = registration.ONNXRegistry.from_torchlib, utils._materialize_cpp_cia_ops

    def counted(*given: object, **named: object) -> object:
        built.append(named)
        return build(*given, **named)

    def _materialize_cpp_cia_ops() -> None:
        asked.append(ask())

    monkeypatch.setattr(registration.ONNXRegistry, "from_torchlib", staticmethod(counted))
    monkeypatch.setattr(utils, ask.__name__, _materialize_cpp_cia_ops)
    program = torch.export.export(nn.Linear(3, 2), (torch.randn(2, 3),))
    for name in "abc":
        export_onnx(program, tmp_path / name, batch_symbol=None)
    assert (len(built), len(asked)) == (1, 3)
    assert registration.ONNXRegistry.from_torchlib is counted
    assert utils._materialize_cpp_cia_ops is _materialize_cpp_cia_ops
