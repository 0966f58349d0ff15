"""What is written, in which formats, and what happens where one of them cannot be had."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jsonschema
import onnx
import onnxruntime as ort
import pytest
import safetensors.torch
import sympy
import torch
import toy_format
from torch import Tensor, nn

import compressor
from compressor import extras
from compressor.cli import main
from compressor.errors import CompressorError, UsageError
from compressor.files.folder import check_target
from compressor.files.format_table import FORMATS, ONNX, PROGRAM, format_of
from compressor.files.hashes import sha256_of
from compressor.formats import export_onnx, onnx_file, save_weights, verifying
from compressor.formats.job import methods_of
from compressor.formats.original import Original
from compressor.graph.analysis import analyse
from compressor.graph.counting import count_macs
from compressor.graph.programs.containers import names_of_outputs
from compressor.graph.trace import trace
from compressor.loading import load_program_file
from compressor.loading.state_dicts import load_strictly
from compressor.options import ExportOptions, ModelOptions, Options
from compressor.records import ExampleInputs, Plan
from compressor.report import report_schema
from compressor.run import footprints
from compressor.run.loaded import tensors_sha256
from compressor.studies.bench.entrants import open_entrant
from compressor.studies.compare import read_result
from compressor.studies.export import export_retrained
from compressor.watch import Silent

Inputs = Tensor


class Net(nn.Module):
    """Two layers, whose output becomes what `made` makes of it."""

    def __init__(self, made: Callable[[Tensor], Any] = lambda y: y) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(6, 16), nn.BatchNorm1d(16)
        self.second, self.made = nn.Linear(16, 4), made

    def forward(self, x: Tensor) -> Any:
        return self.made(self.second(self.norm(self.first(x)).relu()))


def without_onnx(y: Tensor) -> Tensor:
    """No exporter writes products of complex matrices."""
    whole = torch.complex(y, y)
    return torch.einsum("bi,bj->bij", whole, whole).abs()


@pytest.fixture
def x() -> Tensor:
    return torch.rand(2, 6, generator=torch.Generator().manual_seed(0))


def compressed(network: nn.Module, x: Tensor, **options: Any) -> Any:
    return compressor.compress(network, x, 0.5, **{"round_to": 1, **options})


def test_an_attempt_that_fails_leaves_no_file_for_other_formats(x: Tensor) -> None:
    original = Original(trace(Net(without_onnx).eval(), ExampleInputs((x,))), (ONNX, PROGRAM))
    assert list(original.unwritable) == [ONNX]
    with pytest.raises(CompressorError):
        original.file_of(ONNX)
    folder = original.file_of(PROGRAM).parent
    assert not list(folder.iterdir()), "PyTorch runs programs as they are"


# -- what networks return ----------------------------------------------------------------------


class Pair(NamedTuple):
    logits: Tensor
    feature: Tensor


@dataclass
class Answer:
    logits: Tensor
    loss: Tensor | None = None
    more: Any = None


class Bag(dict[str, Any]):
    pass


RETURNED: list[tuple[Callable[[Tensor], Any], list[str]]] = [
    (lambda y: Pair(y, y + 1), ["logits", "feature"]),
    (lambda y: Answer(y), ["logits"]),
    (lambda y: Answer(y, more={"z": [y]}), ["logits", "more.z.0"]),
    (lambda y: y.max(1), ["values", "indices"]),
    (lambda y: SimpleNamespace(a=y, note="b"), ["a"]),
    (lambda y: Bag(a=y), ["a"]),
    (lambda y: {"a": Pair(y, y), 3: y}, ["a.logits", "a.feature", "3"]),
]


@pytest.mark.parametrize(("made", "names"), RETURNED)
def test_whatever_is_returned_is_saved_as_plain_containers(
    made: Callable[[Tensor], Any], names: list[str], x: Tensor, tmp_path: Path
) -> None:
    network = Net(made).eval()
    assert names_of_outputs(trace(network, ExampleInputs((x,))).program) == names
    compressor.save(network, x, tmp_path / "net.pt2")
    found = load_program_file(tmp_path / "net.pt2").module()(x)
    assert type(found) in (tuple, dict)
    leaves = torch.utils._pytree.tree_leaves
    for one, other in zip(leaves(found), leaves(network(x)), strict=True):
        assert type(other) is Tensor
        torch.testing.assert_close(one, other)


def test_a_class_returns_its_own_type_and_the_report_names_its_parts(x: Tensor) -> None:
    found = compressed(Net(lambda y: Answer(y, y.mean())), x, format=())
    assert isinstance(found.module(x), Answer)
    assert found.report["outputs"] == ["logits", "loss"]


# -- names and tensors that are odd -----------------------------------------------------------


def odd_names() -> nn.Module:
    network: nn.Module = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 2))
    network.add_module("a/b c", nn.Sequential(nn.Linear(2, 4)))
    return network


def test_a_slash_in_a_name_counts_and_comes_back(x: Tensor, tmp_path: Path) -> None:
    layers = {"0": 48, "1": 16, "a/b c.0": 8}
    assert analyse(trace(odd_names(), ExampleInputs((x,)))).cost.macs_by_layer() == layers
    assert count_macs(odd_names(), (x[:1],), {}) == sum(layers.values())
    compressor.save(odd_names(), x, tmp_path / "net.pt2")
    assert "a/b c.0.weight" in load_program_file(tmp_path / "net.pt2").state_dict


def test_a_quote_in_a_name_is_not_trusted(x: Tensor, tmp_path: Path) -> None:
    from compressor.loading.program_text import harmful_texts

    assert list(harmful_texts({"parameter_name": 'a").b'})) == [("parameter_name", 'a").b')]
    assert list(harmful_texts({"config": {"a\\": {}}})) == [("config", "a\\")]
    assert list(harmful_texts({"device": "a b"})) == [("device", "a b")]


ODD = [
    torch.zeros(0),
    torch.zeros(0, 3).t(),
    torch.ones(1).expand(3, 4),
    torch.ones(()).expand(1),
    torch.as_strided(torch.ones(4), (1,), (0,)),
    torch.tensor(True),
    torch.ones(3, dtype=torch.bfloat16),
    torch.tensor([1 + 2j, 3 - 1j]).conj(),
]


@pytest.mark.parametrize("value", ODD)
def test_tensors_of_every_kind_are_hashed_and_stored(value: Tensor, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    def holding(tensor: Tensor) -> nn.Module:
        module = nn.Module()
        module.register_buffer("held", tensor)
        return module

    plain = value.resolve_conj().contiguous().clone()
    assert tensors_sha256(holding(value)) == tensors_sha256(holding(plain))
    if value.numel():
        assert tensors_sha256(holding(value)) != tensors_sha256(holding(torch.zeros_like(plain)))
    save_weights({"held": value}, tmp_path / "x.safetensors", {})
    assert torch.equal(load_file(tmp_path / "x.safetensors")["held"], plain)


class Spread(nn.Module):
    """Holds a buffer whose elements share memory, into which torch loads nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(3, 8), nn.Linear(8, 2)
        self.register_buffer("offset", torch.ones(1, 1).expand(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.into(x).relu()) + self.offset.sum(0)


def test_a_result_with_an_expanded_buffer_comes_back(tmp_path: Path) -> None:
    network, x = Spread(), torch.randn(2, 3)
    result = compressor.compress(network, x, 0.3, format="pt2")
    result.save(tmp_path / "out")
    torch.testing.assert_close(compressor.load(tmp_path / "out", Spread)(x), result.module(x))
    assert network.offset.stride() == (0, 0)


def test_weights_are_loaded_over_an_expanded_buffer() -> None:
    network = Spread()
    state = {name: torch.full_like(held, 2.0) for name, held in network.state_dict().items()}
    load_strictly(network, state, "net.pt")
    assert network.offset.tolist() == [[2.0, 2.0]] * 4


def test_what_safetensors_has_no_room_for_is_named(tmp_path: Path) -> None:
    with pytest.raises(CompressorError, match=r"sparse .*cannot be stored"):
        save_weights({"sparse": torch.eye(2).to_sparse()}, tmp_path / "x", {})


def test_numbers_of_other_libraries_are_numbers_in_a_plan() -> None:
    plan = Plan(
        "", {}, {}, {}, {"layer": {"size": sympy.S.One, "share": sympy.Float(0.5)}}, "class"
    )
    assert Plan.from_json(plan.to_json()).attributes == {"layer": {"size": 1, "share": 0.5}}


# -- formats --------------------------------------------------------------------------------------


def test_format_is_read_with_commas_and_refused_by_name() -> None:
    assert Options(format=("onnx,pt2",)).format == ("onnx", "pt2")  # type: ignore[arg-type]
    assert Options.of_keywords({"format": "pt2"}).format == ("pt2",)
    with pytest.raises(UsageError, match="'tflite' is not one of onnx, pt2"):
        Options.of_keywords({"format": "tflite"})


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table with one more row."""
    monkeypatch.setitem(FORMATS, "toy", toy_format.ROW)
    monkeypatch.setenv("PYTHONPATH", str(Path(toy_format.__file__).parent))
    monkeypatch.setattr(footprints, "LATENCY_SECONDS", 0.05)


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))


@pytest.mark.usefixtures("toy")
def test_a_row_is_all_that_a_further_format_takes(x: Tensor, tmp_path: Path) -> None:
    """It is written, verified, hashed, reported, replaced, and timed by its own backend."""
    folder, out = tmp_path / "result", tmp_path / "found.json"
    compressed(linear(), x, format=("onnx", "toy")).save(folder)
    report = json.loads((folder / "report.json").read_text())
    jsonschema.validate(report, report_schema())
    told, file = report["formats"]["toy"], folder / "model.npz"
    assert (told["reason"], told["size_bytes"]) == ("", file.stat().st_size)
    assert report["differences"]["program and toy file"] == told["difference"] < 1e-5
    assert report["files"]["model.npz"] == sha256_of(file)
    words = ["bench", str(folder), "--backend", "toy", "--threads", "1", "--batch", "3"]
    assert main([*words, "--seconds", "0.1", "--out", str(out)]) == 0
    (way,) = json.loads(out.read_text())["ways"]
    assert way["backend"] == "toy"
    assert way["records"][0]["ms"]["p50"] > 0
    check_target(folder, force=True)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CompressorError, match="is not the file that compress wrote"):
        open_entrant(str(folder), tmp_path, ModelOptions())


@pytest.mark.usefixtures("toy")
def test_a_further_format_is_refused_where_it_is_wrong(
    x: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy_format, "SCALE", 1.5)
    told = Told()
    found = compressed(linear(), x, format=("toy",), watch=told)
    found.save(tmp_path / "result")
    assert not (tmp_path / "result/model.npz").exists()
    assert "toy file" in found.report["formats"]["toy"]["reason"]
    assert any(note.startswith("no toy file is delivered, though") for note in told.notes)


@pytest.mark.usefixtures("toy")
def test_what_a_further_format_cannot_hold_is_said_before_anything_is_done(x: Tensor) -> None:
    network = nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 8, 3), nn.Conv1d(8, 2, 3))
    found = compressed(network, x, format=("toy",))
    assert found.report["formats"]["toy"]["reason"] == "a toy file holds linear layers alone"


@pytest.mark.parametrize(
    "name", [name for name, row in FORMATS.items() if row.backends and row.needs]
)
def test_without_its_package_a_format_is_refused_before_anything_is_done(
    name: str, monkeypatch: pytest.MonkeyPatch, x: Tensor
) -> None:
    def absent(module: str) -> Any:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(extras, "importlib", type("Absent", (), {"import_module": absent}))
    with pytest.raises(UsageError, match=f"{FORMATS[name].needs[0]} is not installed") as refused:
        compressed(linear(), x, format=(ONNX, name))
    assert f"--format {name}" in str(refused.value)
    assert f"pip install 'compressor[{name}]'" in str(refused.value)


def test_every_row_has_its_code_and_no_file_is_of_two() -> None:
    files = [name for row in FORMATS.values() for name in (*row.files, row.original) if name]
    assert len(set(files)) == len(files)
    for name, row in FORMATS.items():
        assert row.home.startswith("compressor.formats.")
        methods_of(name)
        assert [format_of(backend) for backend in row.backends] == [name] * len(row.backends)


class Told(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A result of a network that cannot be written as ONNX."""
    folder = tmp_path_factory.mktemp("bare") / "result"
    found = compressed(Net(without_onnx), torch.rand(2, 6))
    found.save(folder)
    return folder, found


def test_without_onnx_the_rest_is_delivered_and_the_reason_said(bare: tuple[Path, Any]) -> None:
    folder, _ = bare
    names = {path.name for path in folder.iterdir()}
    assert {"model.pt2", "model.safetensors", "plan.json", "report.html"} <= names
    assert not names & {"model.onnx", "original.onnx", "bench.py"}
    report = json.loads((folder / "report.json").read_text())
    jsonschema.validate(report, report_schema())
    assert "einsum" in report["formats"]["onnx"]["reason"]
    assert any(note.startswith("no ONNX file is delivered") for note in report["notes"])
    assert report["after"]["latency"][0]["runtime"] == "torch"
    assert "program and ONNX file" not in report["differences"]


def test_a_folder_without_onnx_is_read(bare: tuple[Path, Any], tmp_path: Path) -> None:
    folder, found = bare
    some = torch.rand(3, 6)
    expected = found.module(some)
    torch.testing.assert_close(compressor.load(folder, lambda: Net(without_onnx))(some), expected)
    torch.testing.assert_close(compressor.load_program(folder)(some), expected)
    assert read_result(folder).latency is not None
    entrant = open_entrant(str(folder), tmp_path, ModelOptions())
    assert entrant.file_for("torch").name == "model.pt2"
    with pytest.raises(UsageError, match="no ONNX file"):
        entrant.file_for("onnxruntime")


def test_latency_is_no_budget_without_onnx(x: Tensor) -> None:
    with pytest.raises(CompressorError, match="--of latency times ONNX files"):
        compressed(Net(without_onnx), x, of="latency")


def test_a_file_that_computes_something_else_is_left_out_and_the_rest_delivered(
    x: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*args: Any, **options: Any) -> float:
        raise CompressorError("ONNX Runtime and PyTorch differ")

    monkeypatch.setattr(verifying, "verify_onnx", wrong)
    told = Told()
    found = compressed(Net(), x, watch=told)
    found.save(tmp_path / "result")
    assert not (tmp_path / "result/model.onnx").exists()
    assert (tmp_path / "result/model.pt2").exists()
    assert any("though the original's can be written" in note for note in told.notes)


@pytest.fixture
def exporters_that_fail(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    def fail(count: int) -> None:
        def failing(program: Any, opset: int | None) -> onnx.ModelProto:
            raise RuntimeError("no such operator")

        ways = [
            replace(way, convert=failing) if i < count else way
            for i, way in enumerate(onnx_file.ROUTES)
        ]
        monkeypatch.setattr(onnx_file, "ROUTES", tuple(ways))

    yield fail


@pytest.mark.parametrize(("fails", "batch"), [(0, "batch"), (1, 1), (2, "batch"), (3, 1)])
def test_a_free_batch_then_a_fixed_one_then_the_older_exporter(
    fails: int,
    batch: int | str,
    x: Tensor,
    tmp_path: Path,
    exporters_that_fail: Callable[[int], None],
) -> None:
    exporters_that_fail(fails)
    traced, path = trace(Net().eval(), ExampleInputs((x,))), tmp_path / "m.onnx"
    export_onnx(traced.program, path, batch_symbol=traced.batch_symbol)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [batch, 6]
    (found,) = session.run(None, {"x": x[:1].numpy()})
    torch.testing.assert_close(torch.from_numpy(found), traced.module(x[:1]))


def test_no_way_at_all_says_why(
    x: Tensor, tmp_path: Path, exporters_that_fail: Callable[[int], None]
) -> None:
    exporters_that_fail(4)
    traced = trace(Net().eval(), ExampleInputs((x,)))
    with pytest.raises(CompressorError, match=r"cannot be written as ONNX.*no such operator"):
        export_onnx(traced.program, tmp_path / "m.onnx", batch_symbol=traced.batch_symbol)


class Sizes(nn.Module):
    """Reads its sizes and uses them in every way that tracing may lose."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        batch, steps, _ = x.shape
        y = self.project(x)
        heads = y.view(batch, steps, 2, 4).transpose(1, 2)
        mixed = nn.functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True)
        joined = mixed.transpose(1, 2).reshape(batch * steps, 8)
        marks = y.new_zeros(batch, 1, 8).expand(batch, 2, 8)
        return joined[:batch], torch.cat([marks, y], 1).unflatten(2, (2, 4))


@pytest.mark.parametrize(
    "opset",
    ["13", pytest.param("17", marks=pytest.mark.slow), pytest.param("20", marks=pytest.mark.slow)],
)
def test_the_command_writes_the_version_of_onnx_that_is_asked_for(
    opset: str, whole: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(whole, tmp_path / "net")
    assert main(["export", str(folder), "--opset", opset]) == 0
    (path,) = folder.glob(f"*opset{opset}*.onnx")
    assert onnx.load(str(path)).opset_import[0].version == int(opset)


def test_the_command_writes_weights_that_were_trained_further(whole: Path, tmp_path: Path) -> None:
    module = compressor.load(whole, Net)
    with torch.no_grad():
        next(module.parameters()).mul_(0.5)
    safetensors.torch.save_file(module.state_dict(), tmp_path / "w.safetensors")
    asked = ["--weights", str(tmp_path / "w.safetensors"), "--out", str(tmp_path / "new")]
    assert main(["export", str(whole), *asked]) == 0
    some = torch.rand(3, 6)
    torch.testing.assert_close(compressor.load(tmp_path / "new", Net)(some), module.eval()(some))
    assert {"model.onnx", "model.pt2"} <= {path.name for path in (tmp_path / "new").iterdir()}


@pytest.mark.parametrize("opset", [11, 17])
def test_old_versions_of_onnx_keep_the_batch_free(opset: int, tmp_path: Path) -> None:
    network, path = Sizes().eval(), tmp_path / "m.onnx"
    traced = trace(network, ExampleInputs((torch.rand(2, 5, 8),)))
    export_onnx(traced.program, path, batch_symbol=traced.batch_symbol, opset=opset)
    assert onnx.load(str(path)).opset_import[0].version == opset
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.get_outputs()[1].shape == ["batch", 7, 2, 4]
    for samples in (1, 3):
        some = torch.rand(samples, 5, 8)
        for one, other in zip(session.run(None, {"x": some.numpy()}), network(some), strict=True):
            torch.testing.assert_close(torch.from_numpy(one), other, atol=1e-5, rtol=1e-4)


# -- trained further --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "result"
    compressed(Net(), torch.rand(2, 6)).save(folder)
    return folder


def export(folder: Path, weights: Path, target: Path, **options: Any) -> dict[str, Any]:
    asked = ExportOptions(weights=str(weights), **options)
    return export_retrained(folder, asked, Silent(), target=target)


def test_weights_that_were_trained_further_are_in_every_file(whole: Path, tmp_path: Path) -> None:
    module = compressor.load(whole, Net).train()
    module(torch.rand(8, 6)).square().mean().backward()
    torch.optim.SGD(module.parameters(), 0.5).step()
    torch.save({f"module.{n}": t for n, t in module.state_dict().items()}, tmp_path / "w.pt")
    report = export(whole, tmp_path / "w.pt", tmp_path / "new")
    jsonschema.validate(json.loads((tmp_path / "new/report.json").read_text()), report_schema())
    assert report["differences"]["program and ONNX file"] < 1e-4
    some, module = torch.rand(3, 6), module.eval()
    for again in (
        compressor.load(tmp_path / "new", Net),
        compressor.load_program(tmp_path / "new"),
    ):
        torch.testing.assert_close(again(some), module(some))
    session = ort.InferenceSession(str(tmp_path / "new/model.onnx"))
    (found,) = session.run(None, {"x": some.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), module(some), atol=1e-5, rtol=1e-4)
    with pytest.raises(UsageError, match="exists"):
        export(whole, tmp_path / "w.pt", whole)


def test_how_near_old_weights_were_is_not_said_of_new_ones(tmp_path: Path) -> None:
    samples = [torch.rand(6) for _ in range(24)]
    result = compressed(Net(), torch.rand(2, 6), data=samples, format=(PROGRAM,))
    result.save(tmp_path / "old")
    assert "fidelity" in result.report
    torch.save(result.module.state_dict(), tmp_path / "w.pt")
    assert "fidelity" not in export(tmp_path / "old", tmp_path / "w.pt", tmp_path / "new")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("first.bias"), "1 missing .first.bias"),
        (lambda state: state.update(other=torch.ones(1)), "1 unexpected .other"),
        (lambda state: state.update({"first.bias": torch.ones(3)}), "1 mis-shaped .first.bias"),
        (lambda state: state["first.bias"].fill_(torch.nan), "not finite .first.bias"),
    ],
)
def test_weights_of_another_network_are_refused(
    change: Callable[[dict[str, Tensor]], Any], message: str, whole: Path, tmp_path: Path
) -> None:
    state = compressor.load(whole, Net).state_dict()
    change(state)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(CompressorError, match=message):
        export(whole, tmp_path / "w.pt", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_weights_that_were_tied_may_not_differ(tmp_path: Path) -> None:
    from compressor.loading import read_retrained

    torch.save({"a": torch.ones(2), "b": torch.zeros(2)}, tmp_path / "w.pt")
    with pytest.raises(CompressorError, match="tied to another name, where they differ"):
        read_retrained(tmp_path / "w.pt", {"a": torch.ones(2)}, {"b": "a"})
