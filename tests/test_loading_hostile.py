"""Files that would run code: each would leave a mark, and must neither leave it nor be loaded."""

import contextlib
import io
import json
import os
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torch.export import Dim
from torch.export.pt2_archive import PT2ArchiveReader, PT2ArchiveWriter

from compressor.errors import CompressorError
from compressor.loading import load_model, load_program_file

WEIGHTS_CONFIG = "data/weights/model_weights_config.json"
MODEL = "models/model.json"
SAMPLE_INPUTS = "data/sample_inputs/model.pt"


class Calls:
    """Pickled as a call of any function: what an attacker writes."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def with_special_method() -> nn.Module:
    layer = nn.Linear(2, 2)
    layer.__dict__["__setstate__"] = torch.nn.functional.relu
    return layer


def graph_module_archive(path: Path) -> None:
    """An instance of a subclass of fx.GraphModule, made without its constructor."""
    kind = b"ctorchvision.models.feature_extraction\nDualGraphModule\n"
    instance = b"\x80\x02" + kind + b")\x81}b."
    writer = torch._C.PyTorchFileWriter(str(path))
    writer.write_record("data.pkl", instance, len(instance))
    writer.write_end_of_file()


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "mark"


def leave(mark: Path) -> str:
    """Python source text that leaves the mark; it has no dots, which torch would split at."""
    return f"open({str(mark)!r}, 'w')"


def torch_saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def assert_refused(path: Path, mark: Path, *named: str) -> None:
    with pytest.raises(CompressorError) as caught:
        load_model(str(path))
    assert not mark.exists(), "the file ran its code"
    for name in named:
        assert name in caught.value.what
    assert "not loaded" in caught.value.consequence
    assert "--trust-pickle" in caught.value.next_step


def with_attribute(value: Any) -> nn.Module:
    model = torchvision.models.mobilenet_v2()
    model.extra = value
    return model


PICKLES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a shell command": (lambda mark: Calls(os.system, f"touch {mark}"), "posix.system"),
    "source text": (lambda mark: Calls(exec, leave(mark)), "builtins.exec"),
    "inside a state dict": (
        lambda mark: {"w": torch.ones(1), "x": Calls(exec, leave(mark))},
        "builtins.exec",
    ),
    "inside a library module": (
        lambda mark: with_attribute(Calls(exec, leave(mark))),
        "builtins.exec",
    ),
    "bound for later": (lambda mark: with_attribute(partial(exec, leave(mark))), "builtins.exec"),
    "a library function that downloads": (
        lambda mark: Calls(torchvision.datasets.utils.download_url, f"file://{mark}", str(mark)),
        "torchvision.datasets.utils.download_url",
    ),
    "a library function that makes a model": (
        lambda mark: Calls(torchvision.models.resnet18),
        "torchvision.models.resnet.resnet18",
    ),
    "a layer's constructor": (
        lambda mark: Calls(nn.Linear, 2, 2),
        "the constructor of torch.nn.modules.linear.Linear",
    ),
    "a model's constructor bound for later": (
        lambda mark: with_attribute(partial(torchvision.models.ResNet)),
        "functools.partial(torchvision.models.resnet.ResNet)",
    ),
    "a special method among the attributes": (
        lambda mark: with_special_method(),
        "sets __setstate__",
    ),
    "a tensor made by a function of its own": (
        lambda mark: Calls(
            torch._tensor._rebuild_from_type_v2, nn.Linear, torch.Tensor, (2, 2), {}
        ),
        "a function of its own",
    ),
}


@pytest.mark.parametrize("case", PICKLES)
def test_a_hostile_pickle_is_refused_and_named(case: str, tmp_path: Path, mark: Path) -> None:
    make, named = PICKLES[case]
    path = tmp_path / "model.pt"
    torch.save(make(mark), path)
    assert_refused(path, mark, named)


def test_a_graph_module_is_refused_because_it_compiles_its_text(tmp_path: Path, mark: Path) -> None:
    graph_module_archive(tmp_path / "model.pt")
    assert_refused(tmp_path / "model.pt", mark, "feature_extraction.DualGraphModule")


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_a_hostile_plain_pickle_is_refused(protocol: int, tmp_path: Path, mark: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(pickle.dumps(Calls(exec, leave(mark)), protocol=protocol))
    if protocol < 2:  # no signature: not recognised as a pickle at all
        with pytest.raises(CompressorError):
            load_model(str(path))
        assert not mark.exists()
    else:
        assert_refused(path, mark, "builtins.exec")


def test_a_hostile_file_of_the_legacy_format_is_refused(tmp_path: Path, mark: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"x": Calls(exec, leave(mark))}, path, _use_new_zipfile_serialization=False)
    assert_refused(path, mark, "builtins.exec")


@pytest.mark.parametrize("legacy", [False, True])
def test_the_mark_is_real_where_the_file_is_trusted(
    legacy: bool, tmp_path: Path, mark: Path
) -> None:
    path = tmp_path / "model.pt"
    content = {"w": torch.ones(1), "x": Calls(exec, leave(mark))}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CompressorError):  # it is no model, but its code has run by then
        load_model(str(path), trust_pickle=True)
    assert mark.exists()


def test_hostile_weights_for_a_factory_are_refused(tmp_path: Path, mark: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"w": torch.ones(1), "x": Calls(exec, leave(mark))}, path)
    with pytest.raises(CompressorError, match=r"builtins\.exec"):
        load_model("torchvision:resnet18", weights=str(path))
    assert not mark.exists()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.reshape(x.shape[0] * 2, 6))


@pytest.fixture(scope="module")
def entries() -> dict[str, bytes]:
    """The entries of an honest program with a free batch."""
    shapes = ({0: Dim("batch")},)
    program = torch.export.export(
        Net().eval(), (torch.randn(2, 12),), dynamic_shapes=shapes, strict=False
    )
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    reader = PT2ArchiveReader(buffer)
    return {name: reader.read_bytes(name) for name in reader.get_file_names()}


def write_archive(path: Path, entries: dict[str, bytes]) -> None:
    with path.open("wb") as file, PT2ArchiveWriter(file) as writer:
        for name, data in entries.items():
            if not name.startswith(".data/") and name != "byteorder":
                writer.write_bytes(name, data)


def edited(
    entries: dict[str, bytes], entry: str, edit: Callable[[dict[str, Any]], None]
) -> dict[str, bytes]:
    document = json.loads(entries[entry])
    edit(document)
    return {**entries, entry: json.dumps(document).encode()}


def graph_of(document: dict[str, Any]) -> dict[str, Any]:
    graph: dict[str, Any] = document["graph_module"]["graph"]
    return graph


def hostile_expression(text: str) -> Callable[[dict[str, Any]], None]:
    def edit(document: dict[str, Any]) -> None:
        sizes = graph_of(document)["tensor_values"]["x"]["sizes"]
        sizes[0] = {"as_expr": {"expr_str": text, "hint": {"as_int": 2}}}

    return edit


def hostile_target(target: str, *texts: str) -> Callable[[dict[str, Any]], None]:
    def edit(document: dict[str, Any]) -> None:
        node = {
            "target": target,
            "inputs": [{"name": "", "arg": {"as_string": text}, "kind": 1} for text in texts],
            "outputs": [{"as_none": True}],
            "metadata": {},
            "name": "extra",
        }
        graph_of(document)["nodes"].insert(0, node)

    return edit


def hostile_node_name(mark: Path) -> Callable[[dict[str, Any]], None]:
    def edit(document: dict[str, Any]) -> None:
        graph_of(document)["nodes"][-1]["name"] = f"{leave(mark)}; linear"

    return edit


def hostile_argument_name(mark: Path) -> Callable[[dict[str, Any]], None]:
    def edit(document: dict[str, Any]) -> None:
        entry = document["graph_module"]["module_call_graph"][0]
        entry["signature"]["forward_arg_names"] = [f"x={leave(mark)}"]

    return edit


def hostile_tree(context: str, kind: str) -> Callable[[dict[str, Any]], None]:
    def edit(document: dict[str, Any]) -> None:
        tree = [1, {"type": kind, "context": context, "children_spec": []}]
        entry = document["graph_module"]["module_call_graph"][0]
        entry["signature"]["out_spec"] = json.dumps(tree)

    return edit


def hostile_guard(mark: Path) -> Callable[[dict[str, Any]], None]:
    def edit(document: dict[str, Any]) -> None:
        document["guards_code"] = [leave(mark)]

    return edit


def hidden_behind_metadata(mark: Path) -> Callable[[dict[str, Any]], None]:
    def edit(document: dict[str, Any]) -> None:
        values = graph_of(document)["tensor_values"]
        values["metadata"] = dict(values["x"], sizes=[{"as_expr": {"expr_str": leave(mark)}}])

    return edit


def pickled_weight(entries: dict[str, bytes], mark: Path, flag: Any = True) -> dict[str, bytes]:
    def edit(document: dict[str, Any]) -> None:
        document["config"]["fc.bias"] |= {"use_pickle": flag, "path_name": "weight_9"}

    payload = torch_saved(Calls(exec, leave(mark)))
    return edited({**entries, "data/weights/weight_9": payload}, WEIGHTS_CONFIG, edit)


def opaque_constant(entries: dict[str, bytes], mark: Path) -> dict[str, bytes]:
    meta = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": False}
    config = {"config": {"thing": {**meta, "tensor_meta": None}}}
    return {
        **entries,
        "data/constants/model_constants_config.json": json.dumps(config).encode(),
        "data/constants/opaque_obj_0": pickle.dumps(Calls(exec, leave(mark))),
    }


Archive = Callable[[dict[str, bytes], Path], dict[str, bytes]]
PROGRAMS: dict[str, tuple[Archive, str]] = {
    "sample inputs": (
        lambda e, mark: {**e, SAMPLE_INPUTS: torch_saved(((Calls(exec, leave(mark)),), {}))},
        f"{SAMPLE_INPUTS}: a pickle that calls builtins.exec",
    ),
    "sample inputs as a plain pickle": (
        lambda e, mark: {**e, SAMPLE_INPUTS: pickle.dumps(Calls(exec, leave(mark)), 2)},
        f"{SAMPLE_INPUTS}: a pickle that calls builtins.exec",
    ),
    "a pickled weight": (
        lambda e, mark: pickled_weight(e, mark),
        f"{WEIGHTS_CONFIG}: fc.bias is a pickle (use_pickle)",
    ),
    "a pickled weight by a truthy flag": (
        lambda e, mark: pickled_weight(e, mark, "yes"),
        f"{WEIGHTS_CONFIG}: fc.bias is a pickle (use_pickle)",
    ),
    "an opaque constant": (lambda e, mark: opaque_constant(e, mark), "thing is an object"),
    "legacy weights": (
        lambda e, mark: {**e, "data/weights/model.pt": torch_saved(Calls(exec, leave(mark)))},
        "data/weights/model.pt: a pickle that calls builtins.exec",
    ),
    "a symbolic size": (
        lambda e, mark: edited(e, MODEL, hostile_expression(leave(mark))),
        "as expr_str",
    ),
    "a symbolic size within a known function": (
        lambda e, mark: edited(e, MODEL, hostile_expression(f"Symbol({leave(mark)})")),
        "as expr_str",
    ),
    "a symbolic size within quotes": (
        lambda e, mark: edited(e, MODEL, hostile_expression(f"Integer({leave(mark)!r})")),
        "as expr_str",
    ),
    "a symbolic size hidden behind metadata": (
        lambda e, mark: edited(e, MODEL, hidden_behind_metadata(mark)),
        "as expr_str",
    ),
    "a shell command as operator": (
        lambda e, mark: edited(e, MODEL, hostile_target("torch.os.system", f"touch {mark}")),
        "'torch.os.system' as target",
    ),
    "an operator that writes files": (
        lambda e, mark: edited(e, MODEL, hostile_target("torch.ops.aten.from_file.default", "f")),
        "from_file",
    ),
    "a namespace's own attribute as operator": (
        lambda e, mark: edited(e, MODEL, hostile_target("torch.ops.aten.__class__.mro")),
        "__class__",
    ),
    "a node's name": (lambda e, mark: edited(e, MODEL, hostile_node_name(mark)), "as name"),
    "an argument's name": (
        lambda e, mark: edited(e, MODEL, hostile_argument_name(mark)),
        "as forward_arg_names",
    ),
    "a guard": (lambda e, mark: edited(e, MODEL, hostile_guard(mark)), "as guards_code"),
    "an enum of any module": (
        lambda e, mark: edited(
            e,
            MODEL,
            hostile_tree('{"__enum__": 1, "fqn": "any.module:X", "name": "x"}', "builtins.dict"),
        ),
        "as out_spec",
    ),
    "a default factory of any module": (
        lambda e, mark: edited(e, MODEL, hostile_tree("{}", "collections.defaultdict")),
        "as out_spec",
    ),
    "a compiled library": (
        lambda e, mark: {**e, "data/aotinductor/model/model.so": b"\x7fELF"},
        "data/aotinductor/model/model.so",
    ),
    "a name behind a name": (
        lambda e, mark: {**e, "models/MODEL.json": e[MODEL]},
        "two entries of the same name",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PROGRAMS)
def test_a_hostile_program_is_refused_and_its_entry_named(
    case: str, entries: dict[str, bytes], tmp_path: Path, mark: Path
) -> None:
    make, named = PROGRAMS[case]
    path = tmp_path / "model.pt2"
    write_archive(path, make(entries, mark))
    assert_refused(path, mark, "model.pt2 would run code", named)


def test_the_archives_of_these_tests_are_otherwise_honest(
    entries: dict[str, bytes], tmp_path: Path
) -> None:
    write_archive(tmp_path / "model.pt2", entries)
    loaded = load_model(str(tmp_path / "model.pt2"))
    assert loaded.module(torch.randn(3, 12)).shape == (6, 4)


@pytest.mark.parametrize("case", ["sample inputs", "a pickled weight", "a symbolic size"])
def test_the_marks_of_programs_are_real_where_the_file_is_trusted(
    case: str, entries: dict[str, bytes], tmp_path: Path, mark: Path
) -> None:
    write_archive(tmp_path / "model.pt2", PROGRAMS[case][0](entries, mark))
    # the payload is no tensor; what counts is that it ran
    with contextlib.suppress(CompressorError):
        load_program_file(tmp_path / "model.pt2", trust_pickle=True)
    assert mark.exists()


@pytest.mark.parametrize(
    ("entry", "data"),
    [(MODEL, b"{"), (MODEL, b"{}"), (WEIGHTS_CONFIG, b"[]"), ("archive_version", b"99")],
)
def test_a_damaged_program_is_told_so(
    entry: str, data: bytes, entries: dict[str, bytes], tmp_path: Path
) -> None:
    write_archive(tmp_path / "model.pt2", {**entries, entry: data})
    with pytest.raises(CompressorError, match=r"cannot be read as a torch\.export program"):
        load_model(str(tmp_path / "model.pt2"))
