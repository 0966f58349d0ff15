"""MODEL as a factory: libraries, packages, files; what it is called with, and how it fails."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from compressor.errors import CompressorError, UsageError
from compressor.loading import load_model
from compressor.loading.factory_args import parse_factory_args
from compressor.records import AS_MADE, RANDOM

SOURCE = """
import torch
from torch import nn

def build(width=4, *, act="relu"):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU() if act == "relu" else nn.GELU())

def needs_width(width):
    return build(width)

def own_pretrained(pretrained=False):
    net = build()
    net.was_pretrained = pretrained
    return net

def raises():
    raise ValueError("no such dataset")

def returns_list():
    return [1, 2]

class Net(nn.Linear):
    def __init__(self):
        super().__init__(3, 2)

number = 3

def example_inputs():
    return torch.randn(1, 3, 16, 16)
"""


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    path = tmp_path / "nets.py"
    path.write_text(SOURCE)
    return path


def test_a_torchvision_factory() -> None:
    loaded = load_model("torchvision:resnet18", factory_args=["num_classes=10"])
    assert isinstance(loaded.module, torchvision.models.ResNet)
    assert loaded.module.fc.out_features == 10
    assert (loaded.name, loaded.weights, loaded.sha256) == ("resnet18", "random weights", None)


def test_a_torchvision_factory_does_not_fetch_a_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        raise AssertionError("fetched weights that nobody asked for")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", no_network)
    assert load_model("torchvision:lraspp_mobilenet_v3_large").weights == "random weights"


def test_a_timm_factory() -> None:
    timm = pytest.importorskip("timm")
    loaded = load_model("timm:resnet18", factory_args=["num_classes=7"])
    assert isinstance(loaded.module, timm.models.ResNet)
    assert loaded.module.fc.out_features == 7


def test_a_file_factory_with_its_examples(nets: Path) -> None:
    loaded = load_model(f"{nets}:build", factory_args=["width=6", "act='gelu'"])
    assert loaded.module.get_submodule("0").weight.shape[0] == 6
    assert isinstance(loaded.module.get_submodule("1"), nn.GELU)
    assert loaded.examples is not None
    assert loaded.examples.args[0].shape == (1, 3, 16, 16)
    assert loaded.examples.origin == "the factory's example_inputs()"


def test_a_class_is_a_factory(nets: Path) -> None:
    assert isinstance(load_model(f"{nets}:Net").module, nn.Linear)


def test_a_package_factory_from_the_working_directory(
    nets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (nets.parent / "zoo_of_this_test").mkdir()
    nets.rename(nets.parent / "zoo_of_this_test" / "nets.py")
    monkeypatch.chdir(nets.parent)
    assert load_model("zoo_of_this_test.nets:build").name == "build"


def test_a_file_factory_imports_its_neighbours(nets: Path) -> None:
    (nets.parent / "neighbour_of_this_test.py").write_text("WIDTH = 9\n")
    other = nets.parent / "other.py"
    other.write_text(
        "from torch import nn\n"
        "def build():\n"
        "    from neighbour_of_this_test import WIDTH\n"
        "    return nn.Linear(WIDTH, 2)\n"
    )
    assert load_model(f"{other}:build").module.in_features == 9


def test_weights_for_a_factory(nets: Path, tmp_path: Path) -> None:
    weights = load_model(f"{nets}:build").module.state_dict()
    torch.save({"state_dict": weights}, tmp_path / "weights.pth")
    loaded = load_model(f"{nets}:build", weights=str(tmp_path / "weights.pth"))
    assert loaded.weights == "loaded"
    assert loaded.sha256
    assert torch.equal(loaded.module.state_dict()["0.weight"], weights["0.weight"])


def test_pretrained_reaches_a_factory_that_has_it(nets: Path) -> None:
    loaded = load_model(f"{nets}:own_pretrained", pretrained=True)
    assert loaded.module.was_pretrained is True
    assert loaded.weights == "pretrained"
    with pytest.raises(UsageError, match="no argument 'pretrained'"):
        load_model(f"{nets}:build", pretrained=True)


def test_pretrained_takes_the_librarys_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = torchvision.models.resnet18().state_dict()
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda *_, **__: fetched
    )
    loaded = load_model("torchvision:resnet18", pretrained=True)
    assert torch.equal(loaded.module.state_dict()["conv1.weight"], fetched["conv1.weight"])


def test_a_network_failure_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(CompressorError, match=r"could not be fetched.*reset by peer") as caught:
        load_model("torchvision:resnet18", pretrained=True)
    assert "network" in caught.value.next_step


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("torchvision:resnet19", r"no model resnet19\. Did you mean resnet"),
        ("timm:resnet1888", r"no model resnet1888\. Did you mean resnet"),
        ("{nets}:biuld", r"has no biuld\. Did you mean build"),
        ("{nets}:number", "number .* is not callable"),
        ("{nets}x.py:build", r"no file .*nets\.pyx\.py\. Did you mean nets\.py\?"),
        ("no_such_package_here.nets:build", "cannot be imported"),
        ("collections:", "not a factory"),
    ],
)
def test_unknown_names_suggest_the_nearest(spec: str, words: str, nets: Path) -> None:
    with pytest.raises(UsageError, match=words):
        load_model(spec.format(nets=nets))


def test_a_factory_that_wants_arguments_shows_its_signature(nets: Path) -> None:
    with pytest.raises(UsageError, match="width") as caught:
        load_model(f"{nets}:needs_width")
    assert caught.value.where == "needs_width(width)"
    assert "--factory-arg" in caught.value.next_step
    with pytest.raises(UsageError, match="'widht'"):
        load_model(f"{nets}:build", factory_args=["widht=3"])


def test_a_factory_that_raises_is_quoted_in_one_line(nets: Path) -> None:
    with pytest.raises(CompressorError) as caught:
        load_model(f"{nets}:raises")
    assert caught.value.what.endswith("raised ValueError: no such dataset")
    line = SOURCE.splitlines().index('    raise ValueError("no such dataset")') + 1
    assert caught.value.where == f"{nets}:{line}"
    assert "raises()" in caught.value.next_step


def test_a_library_factory_that_raises(nets: Path) -> None:
    with pytest.raises(CompressorError, match="unexpected keyword argument") as caught:
        load_model("torchvision:resnet18", factory_args=["colour=3"])
    assert "resnet18(" in caught.value.next_step


def test_a_factory_that_returns_no_module(nets: Path) -> None:
    with pytest.raises(CompressorError, match=r"returned list, not an nn\.Module"):
        load_model(f"{nets}:returns_list")


@pytest.mark.parametrize(
    "text", ["import (", "raise RuntimeError('broken')", "import no_such_package_here"]
)
def test_a_file_that_cannot_be_imported(text: str, nets: Path) -> None:
    nets.write_text(text)
    with pytest.raises(CompressorError, match=r"importing|imported"):
        load_model(f"{nets}:build")


def test_examples_beside_a_factory_that_raise(nets: Path) -> None:
    nets.write_text(SOURCE.replace("return torch.randn(1, 3, 16, 16)", "return torch.no_such()"))
    with pytest.raises(CompressorError, match=r"example_inputs\(\) beside .* raised") as caught:
        load_model(f"{nets}:build")
    assert "--input" in caught.value.next_step


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("num_classes", "not name=value"),
        ("=3", "not name=value"),
        ("a b=1", "not name=value"),
        ("act=", "no value"),
        ("sizes=(1, 2", "no value"),
        ("x=__import__('os')", "no value"),
        ("bias=false", "write False"),
        ("act=none", "write None"),
    ],
)
def test_arguments_of_factories_that_are_neither_literals_nor_text(pair: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load_model("torchvision:resnet18", factory_args=[pair])


def test_an_argument_of_a_factory_may_be_plain_text(nets: Path) -> None:
    plain = load_model(f"{nets}:build", factory_args=["act=gelu"])
    assert isinstance(plain.module.get_submodule("1"), nn.GELU)
    assert parse_factory_args(["a=resnet-50", "b=1e-3", "c=(1, 2)", "d=3x"]) == {
        "a": "resnet-50", "b": 1e-3, "c": (1, 2), "d": "3x"
    }  # fmt: skip


def test_what_is_known_of_weights_is_said(nets: Path) -> None:
    assert load_model("torchvision:resnet18").weights == RANDOM
    assert load_model(f"{nets}:build").weights == AS_MADE


@pytest.mark.parametrize(
    "options",
    [{"factory": "torchvision:resnet18"}, {"weights": "w.pt", "pretrained": True},
     {"weights": "no-such-file.pt"}],
)  # fmt: skip
def test_options_that_do_not_go_together(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        load_model("torchvision:resnet18", **options)
