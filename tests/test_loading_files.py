"""MODEL as a file: every form that is taken, every form that is refused, and in what words."""

import collections
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from compressor.errors import CompressorError, UsageError
from compressor.loading import load_model, refuse_non_finite

timm = pytest.importorskip("timm")


class OwnNet(nn.Module):
    """A class of the user's: no library, so its pickle is not taken on trust."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).mean((2, 3))


FACTORY = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.fc = nn.Linear(width, 2)

    def forward(self, x):
        return self.fc(self.conv(x).mean((2, 3)))

def build(width=4):
    return Net(width)
"""


@pytest.fixture
def factory(tmp_path: Path) -> str:
    path = tmp_path / "nets.py"
    path.write_text(FACTORY)
    return f"{path}:build"


def small_net() -> nn.Module:
    return nn.Sequential(
        collections.OrderedDict(conv=nn.Conv2d(3, 4, 3), relu=nn.ReLU(), flat=nn.Flatten())
    )


def weights_of(factory: str, width: int = 4) -> dict[str, torch.Tensor]:
    loaded = load_model(factory, factory_args=[f"width={width}"])
    return dict(loaded.module.state_dict())


def assert_same_outputs(one: nn.Module, other: nn.Module, *inputs: torch.Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(one.eval()(*inputs), other.eval()(*inputs))


LIBRARY_MODELS = {
    "resnet18": torchvision.models.resnet18,
    "vit_b_16": lambda: torchvision.models.vit_b_16(image_size=64),
    "efficientnet_b0": torchvision.models.efficientnet_b0,
    "densenet121": torchvision.models.densenet121,
    "convnext_tiny": torchvision.models.convnext_tiny,
    "mobilenet_v2": torchvision.models.mobilenet_v2,
    "timm_resnet18": lambda: timm.create_model("resnet18"),
}


@pytest.mark.parametrize("name", LIBRARY_MODELS)
def test_a_pickled_library_module_just_works(name: str, tmp_path: Path) -> None:
    model = LIBRARY_MODELS[name]()
    path = tmp_path / f"{name}.pt"
    torch.save(model, path)
    loaded = load_model(str(path))
    assert type(loaded.module) is type(model)
    assert (loaded.name, loaded.weights) == (name, "loaded")
    assert loaded.sha256 is not None
    assert len(loaded.sha256) == 64
    assert_same_outputs(loaded.module, model, torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (small_net(), torch.randn(1, 3, 8, 8)),
        (
            nn.TransformerEncoder(
                nn.TransformerEncoderLayer(16, 2, 32, activation="gelu", batch_first=True), 1
            ),
            torch.randn(1, 3, 16),
        ),
        (nn.LSTM(4, 8, 2), torch.randn(3, 1, 4)),
    ],
    ids=["sequential", "transformer", "lstm"],
)
def test_pickled_torch_layers_just_work(
    model: nn.Module, inputs: torch.Tensor, tmp_path: Path
) -> None:
    torch.save(model, tmp_path / "model.pt")
    assert_same_outputs(load_model(str(tmp_path / "model.pt")).module, model, inputs)


def test_the_extension_says_nothing(tmp_path: Path) -> None:
    torch.save(small_net(), tmp_path / "model.safetensors")
    loaded = load_model(str(tmp_path / "model.safetensors"))
    assert loaded.recognised == "a pickled Sequential"


def test_a_data_parallel_wrapper_is_taken_off(tmp_path: Path) -> None:
    torch.save(nn.DataParallel(small_net()), tmp_path / "model.pt")
    assert type(load_model(str(tmp_path / "model.pt")).module) is nn.Sequential


def test_a_module_inside_a_checkpoint_is_found(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "model": small_net()}, tmp_path / "model.pt")
    assert type(load_model(str(tmp_path / "model.pt")).module) is nn.Sequential


def test_a_class_of_the_users_own_is_refused_and_named(tmp_path: Path) -> None:
    torch.save(OwnNet(), tmp_path / "own.pt")
    with pytest.raises(CompressorError) as caught:
        load_model(str(tmp_path / "own.pt"))
    assert f"{OwnNet.__module__}.OwnNet" in caught.value.what
    assert "not loaded" in caught.value.consequence
    assert "--trust-pickle" in caught.value.next_step
    assert "compressor.save" in caught.value.next_step
    assert "--factory" in caught.value.next_step


def test_trust_loads_a_class_of_the_users_own(tmp_path: Path) -> None:
    model = OwnNet()
    torch.save(model, tmp_path / "own.pt")
    loaded = load_model(str(tmp_path / "own.pt"), trust_pickle=True)
    assert type(loaded.module) is OwnNet
    assert_same_outputs(loaded.module, model, torch.randn(1, 3, 8, 8))


def test_trust_of_a_plain_pickle(tmp_path: Path) -> None:
    (tmp_path / "own.pkl").write_bytes(pickle.dumps(OwnNet()))
    with pytest.raises(CompressorError, match="plain pickle"):
        load_model(str(tmp_path / "own.pkl"))
    assert type(load_model(str(tmp_path / "own.pkl"), trust_pickle=True).module) is OwnNet


def test_trust_does_not_conjure_a_missing_class(tmp_path: Path) -> None:
    pickled = pickle.dumps(OwnNet()).replace(b"OwnNet", b"NoSuch")
    (tmp_path / "own.pkl").write_bytes(pickled)
    with pytest.raises(CompressorError, match="needs a class that cannot be found"):
        load_model(str(tmp_path / "own.pkl"), trust_pickle=True)


@pytest.mark.parametrize("form", ["plain", "nested", "parallel", "compiled", "legacy", "lightning"])
def test_state_dicts_of_all_forms(form: str, factory: str, tmp_path: Path) -> None:
    weights = weights_of(factory)
    path = tmp_path / "weights.pth"
    content: dict[str, Any] = {
        "plain": weights,
        "legacy": weights,
        "nested": {"epoch": 1, "optimizer": {"lr": 0.1}, "state_dict": weights},
        "parallel": {"model": {f"module.{key}": value for key, value in weights.items()}},
        "compiled": {f"module._orig_mod.{key}": value for key, value in weights.items()},
        "lightning": {"state_dict": {f"model.{key}": value for key, value in weights.items()}},
    }[form]
    torch.save(content, path, _use_new_zipfile_serialization=form != "legacy")
    loaded = load_model(str(path), factory=factory)
    assert loaded.weights == "loaded"
    for key, value in loaded.module.state_dict().items():
        assert torch.equal(value, weights[key])


def test_safetensors_with_a_factory(factory: str, tmp_path: Path) -> None:
    weights = weights_of(factory)
    save_file(weights, tmp_path / "weights.pt")
    loaded = load_model(str(tmp_path / "weights.pt"), factory=factory)
    assert torch.equal(loaded.module.state_dict()["fc.weight"], weights["fc.weight"])
    assert "safetensors" in loaded.recognised


def test_tensors_saved_on_another_device_come_to_the_cpu(factory: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(weights_of(factory), path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    (tmp_path / "gpu.pth").write_bytes(_rezip(entries, b"X\x03\0\0\0cpu", b"X\x06\0\0\0cuda:0"))
    loaded = load_model(str(tmp_path / "gpu.pth"), factory=factory)
    assert {value.device.type for value in loaded.module.state_dict().values()} == {"cpu"}


def _rezip(entries: dict[str, bytes], old: bytes, new: bytes) -> bytes:
    """The archive with one text in its pickle replaced; torch wants aligned, unpacked entries."""
    buffer = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(buffer)
    for name, data in entries.items():
        inner = name.partition("/")[2]
        if inner == "data.pkl":
            assert old in data
            data = data.replace(old, new)
        if inner not in ("version", ".data/serialization_id"):
            writer.write_record(inner, data, len(data))
    writer.write_end_of_file()
    return buffer.getvalue()


def test_tied_weights_need_only_one_copy(tmp_path: Path) -> None:
    (tmp_path / "tied.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    net = nn.Sequential(nn.Embedding(8, 4), nn.Linear(4, 8, bias=False))\n"
        "    net[1].weight = net[0].weight\n"
        "    return net\n"
    )
    save_file({"0.weight": torch.ones(8, 4)}, tmp_path / "tied.safetensors")
    loaded = load_model(str(tmp_path / "tied.safetensors"), factory=f"{tmp_path}/tied.py:build")
    assert torch.equal(loaded.module.state_dict()["1.weight"], torch.ones(8, 4))


def test_a_state_dict_without_a_factory(factory: str, tmp_path: Path) -> None:
    torch.save(weights_of(factory), tmp_path / "weights.pth")
    with pytest.raises(UsageError, match="state dict") as caught:
        load_model(str(tmp_path / "weights.pth"))
    assert f"compress {tmp_path / 'weights.pth'} --factory" in caught.value.next_step


def test_misfits_are_listed_and_long_lists_cut(factory: str, tmp_path: Path) -> None:
    weights = weights_of(factory)
    del weights["conv.bias"]
    weights["fc.bias"] = torch.zeros(7)
    weights |= {f"extra{index}": torch.zeros(1) for index in range(20)}
    torch.save(weights, tmp_path / "weights.pth")
    with pytest.raises(CompressorError) as caught:
        load_model(str(tmp_path / "weights.pth"), factory=factory)
    assert "1 missing (conv.bias)" in caught.value.what
    assert "fc.bias: 7 in the file, 2 in the model" in caught.value.what
    assert "20 unexpected (extra0," in caught.value.what
    assert "… and 12 more" in caught.value.what


def test_weights_that_are_not_finite_are_named(tmp_path: Path) -> None:
    model = small_net()
    with torch.no_grad():
        model.get_submodule("conv").weight[0] = float("nan")
    torch.save(model, tmp_path / "model.pt")
    with pytest.raises(CompressorError, match=r"conv\.weight"):
        load_model(str(tmp_path / "model.pt"))


def test_buffers_may_hold_infinities_but_running_statistics_may_not() -> None:
    masked = nn.Linear(2, 2)
    masked.register_buffer("mask", torch.full((2, 2), float("-inf")))
    refuse_non_finite(masked)
    norm = nn.BatchNorm1d(2)
    norm.running_var.fill_(float("inf"))
    with pytest.raises(CompressorError, match="running_var"):
        refuse_non_finite(norm)


def test_lazy_parameters_are_refused() -> None:
    with pytest.raises(CompressorError, match="without a shape"):
        refuse_non_finite(nn.LazyLinear(2))


def test_sparse_tensors_are_refused_by_name() -> None:
    sparse = nn.Linear(2, 2)
    sparse.weight = nn.Parameter(torch.eye(2).to_sparse())
    with pytest.raises(CompressorError, match=r"not dense .*: weight"):
        refuse_non_finite(sparse)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_torchscript_is_refused_with_a_way_out(tmp_path: Path) -> None:
    script = torch.jit.trace(small_net(), torch.randn(1, 3, 8, 8))
    script.save(tmp_path / "model.pt")
    with pytest.raises(CompressorError, match="TorchScript") as caught:
        load_model(str(tmp_path / "model.pt"))
    assert "compressor.save" in caught.value.next_step
    with pytest.raises(CompressorError, match="TorchScript") as caught:
        load_model(str(tmp_path / "model.pt"), trust_pickle=True)
    assert "--trust-pickle changes nothing about that" in str(caught.value)
    assert "--factory path/file.py:callable" in str(caught.value)


def truncated_archive() -> bytes:
    buffer = io.BytesIO()
    torch.save(small_net(), buffer)
    return buffer.getvalue()[:-200]


def zip_of(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, data)
    return buffer.getvalue()


def torch_saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (truncated_archive(), "truncated"),
        (b"print('hello')\n", "text file"),
        ("naïve text".encode(), "text file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        (b"\x08\x07\x12\x07pytorch", "ONNX"),
        (bytes(range(255, 0, -1)), "unknown format"),
        (zip_of("readme.md", b"hello"), "zip archive"),
        (zip_of("x.npy", b"hello"), "NumPy"),
        (zip_of("archive/data.pkl", b"hello"), "cannot be read"),
        (zip_of("serialized_exported_program.json", b"{}"), "old format"),
        (zip_of("archive/archive_format", b"pt2"), "cannot be read"),
        (b"\x80\x02broken", "cannot be read"),
        ((100).to_bytes(8, "little") + b'{"a": truncated', "damaged or truncated safetensors"),
        (torch_saved([1, 2, 3]), "an object of type list"),
        (torch_saved({"epoch": 1}), "a dict with the keys epoch"),
        (torch_saved({}), "an empty dict"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_model_is_told_so(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(CompressorError, match=words) as caught:
        load_model(str(path))
    assert caught.value.next_step


def test_a_missing_file_suggests_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "resnet.pt").write_bytes(b"")
    with pytest.raises(UsageError, match=r"Did you mean resnet\.pt\?"):
        load_model(str(tmp_path / "resnt.pt"))
    with pytest.raises(UsageError, match="no folder"):
        load_model(str(tmp_path / "nowhere" / "resnt.pt"))


def test_a_folder_lists_its_files(tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_bytes(b"")
    with pytest.raises(UsageError, match="folder") as caught:
        load_model(str(tmp_path))
    assert "model.pt2" in caught.value.next_step


@pytest.mark.parametrize(
    "options",
    [{"factory": "torchvision:resnet18"}, {"factory_args": ["a=1"]}, {"weights": "w.pt"},
     {"pretrained": True}],
)  # fmt: skip
def test_options_of_factories_do_not_go_with_a_whole_module(
    options: dict[str, Any], tmp_path: Path
) -> None:
    torch.save(small_net(), tmp_path / "model.pt")
    with pytest.raises(UsageError):
        load_model(str(tmp_path / "model.pt"), **options)
