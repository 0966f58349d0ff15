"""Checkpoints as training scripts leave them: which weights are taken, and what is said of it."""

from __future__ import annotations

import copy
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from compressor.errors import CompressorError, UsageError
from compressor.loading import load_model
from compressor.loading.state_dicts import Taken, load_strictly
from compressor.records import LoadedModel

State = dict[str, Tensor]
NETS = """
from torch import nn

def build(width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, 2, 1))
"""


def build(width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, 2, 1))


def filled(value: float, width: int = 4) -> State:
    return {
        name: torch.full_like(tensor, value) for name, tensor in build(width).state_dict().items()
    }


def under(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def adam() -> dict[str, Any]:
    net = build()
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


PLAIN, AVERAGED, OTHER = filled(1), filled(2), filled(3, width=5)

# what the file holds -> the way to the weights that are taken, all of them 1, or 2 where only
# averages are there
LAYOUTS: dict[str, tuple[Any, str]] = {
    "optimizer first": ({"optimizer": adam(), "epoch": 3, "model": PLAIN}, "model"),
    "an optimizer's bare moments": ({"moments": {"0": torch.ones(4)}, "net": PLAIN}, "net"),
    "lightning": (
        {
            "optimizer_states": [adam()],
            "state_dict": {**under("net.", PLAIN), "criterion.weight": torch.ones(9)},
            "hyper_parameters": {"lr": 0.1},
            "callbacks": {"checkpoint": {"best": torch.tensor(0.9)}},
        },
        "state_dict.net",
    ),
    "swa": ({"n_averaged": torch.tensor(5), **under("module.", PLAIN)}, "module"),
    "timm": ({"state_dict_ema": AVERAGED, "state_dict": PLAIN}, "state_dict"),
    "averages first": ({"ema": {"module": AVERAGED}, "weights": PLAIN}, "weights"),
    "averages alone": ({"epoch": 2, "params_ema": AVERAGED}, "params_ema"),
    "averages in one dict": (
        {**under("ema_model.", AVERAGED), **under("online_model.", PLAIN)},
        "online_model",
    ),
    "a pair": ({"discriminator": OTHER, "generator": PLAIN}, "generator"),
    "a pair in one dict": ({**under("netD.", OTHER), **under("netG.", PLAIN)}, "netG"),
    "nested twice": ({"checkpoint": {"nested": {"params": PLAIN}}}, "checkpoint.nested.params"),
    "a list": ([{"lr": 0.1}, OTHER, PLAIN], "2"),
    "beside counters": ({**PLAIN, "epoch": 4}, ""),
    "the same twice": ({"best": PLAIN, "last": dict(PLAIN)}, "best"),
    "under a name of its own": ({"segmenter": PLAIN, "student": OTHER}, "segmenter"),
}


def taken_from(content: Any, **options: Any) -> tuple[State, Taken]:
    net = build()
    taken = load_strictly(net, content, "a file", **options)
    return net.state_dict(), taken


def value_of(state: State) -> float:
    (value,) = {float(tensor.max()) for name, tensor in state.items() if "tracked" not in name}
    return value


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_weights_that_fit_are_found(layout: str) -> None:
    content, key = LAYOUTS[layout]
    state, taken = taken_from(content)
    assert value_of(state) == (2 if layout == "averages alone" else 1)
    assert taken.key == key


def test_averages_beside_the_weights_are_said_and_can_be_had() -> None:
    content = {"epoch": 1, "model": PLAIN, "model_ema": {"module": AVERAGED}}
    _, taken = taken_from(content)
    (note,) = taken.notes
    assert "those under 'model'" in note
    assert "'model_ema.module' (averaged)" in note
    assert "--weights-key model_ema.module" in note
    state, taken = taken_from(content, key="model_ema")
    assert value_of(state) == 2
    assert "averages" in taken.notes[0]


def test_what_lies_beside_the_network_is_left_out_and_said() -> None:
    content = LAYOUTS["lightning"][0]
    (note,) = taken_from(content)[1].notes
    assert "net.*" in note
    assert "criterion.weight" in note


def test_weights_that_differ_and_fit_alike_are_refused_with_a_list() -> None:
    content = {"teacher": AVERAGED, "student": PLAIN}
    with pytest.raises(CompressorError, match="they differ") as caught:
        taken_from(content)
    for words in ("'teacher' (", "'student' (", "139 numbers"):
        assert words in caught.value.what
    assert "--weights-key teacher" in caught.value.next_step
    assert value_of(taken_from(content, key="student")[0]) == 1


@pytest.mark.parametrize("key", ["netG", "a.b", "a.b.c"])
def test_a_key_is_a_way_a_prefix_or_a_name_with_dots(key: str) -> None:
    content = {
        "netG": {"netG.0.weight": torch.ones(1), "w": PLAIN},
        "a": {"b": {"c": PLAIN}},
        "a.b": {"c": PLAIN},
    }
    assert value_of(taken_from(content, key=key)[0]) == 1
    assert value_of(taken_from(under("netG.", PLAIN), key="netG")[0]) == 1


def test_a_key_that_leads_nowhere_lists_those_that_do() -> None:
    with pytest.raises(UsageError, match=r"nothing under 'emma'\. Did you mean ema\?") as caught:
        taken_from({"ema": AVERAGED, "model": PLAIN}, key="emma")
    assert "ema, model" in caught.value.next_step


def test_surplus_tensors_are_refused_unless_they_are_named() -> None:
    content = {"model": {**PLAIN, "aux.weight": torch.ones(2), "aux.bias": torch.ones(2)}}
    with pytest.raises(CompressorError, match=r"2 unexpected \(aux\.weight, aux\.bias") as caught:
        taken_from(content)
    assert "--ignore-unexpected" in caught.value.next_step
    state, taken = taken_from(content, ignore=["aux.*"])
    assert value_of(state) == 1
    assert "left 2 tensors out (aux.weight, aux.bias)" in taken.notes[-1]
    with pytest.raises(CompressorError, match=r"1 unexpected \(aux\.bias\)"):
        taken_from(content, ignore=["aux.weight"])


def test_a_misfit_names_the_other_weights_of_the_file() -> None:
    with pytest.raises(CompressorError, match="mis-shaped") as caught:
        taken_from({"generator": OTHER, "discriminator": filled(1, width=6)})
    assert "'discriminator'" in caught.value.next_step
    assert "--weights-key" in caught.value.next_step


def loaded(tmp_path: Path, content: Any, **options: Any) -> LoadedModel:
    (tmp_path / "nets.py").write_text(NETS)
    torch.save(content, tmp_path / "net.ckpt")
    return load_model(
        str(tmp_path / "net.ckpt"), factory=f"{tmp_path / 'nets.py'}:build", **options
    )


def test_where_the_weights_were_is_told(tmp_path: Path) -> None:
    found = loaded(tmp_path, {"state_dict": PLAIN, "state_dict_ema": AVERAGED})
    assert "a state dict under 'state_dict'" in found.recognised
    assert len(found.notes) == 1
    found = loaded(
        tmp_path, {"state_dict": PLAIN, "state_dict_ema": AVERAGED}, weights_key="state_dict_ema"
    )
    assert "under 'state_dict_ema'" in found.recognised


def test_what_stands_beside_the_weights_is_never_run(tmp_path: Path) -> None:
    """NumPy's scalars and generator states, and paths, are told to torch as empty stand-ins."""
    content = {
        "best": np.float64(91.2),
        "path": PosixPath("runs/x"),
        "generator": np.random.get_state(),
        "state_dict": PLAIN,
    }
    assert value_of(loaded(tmp_path, content).module.state_dict()) == 1


def test_safetensors_with_two_networks(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(NETS)
    path = tmp_path / "net.safetensors"
    save_file({**under("ema.", AVERAGED), **under("net.", PLAIN)}, path)
    factory = f"{tmp_path / 'nets.py'}:build"
    assert value_of(load_model(str(path), factory=factory).module.state_dict()) == 1
    for given in ({"weights": str(path)}, {"weights": str(path), "ignore_unexpected": ["net.*"]}):
        found = load_model(factory, **given, weights_key="ema")
        assert value_of(found.module.state_dict()) == 2
        assert "weights under 'ema'" in found.recognised


def module_filled(value: float) -> nn.Module:
    net = copy.deepcopy(build())
    net.load_state_dict(filled(value))
    return net


def test_of_pickled_modules_the_weights_come_before_their_averages(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save({"ema": module_filled(2), "model": module_filled(1)}, path)
    found = load_model(str(path))
    assert value_of(dict(found.module.state_dict())) == 1
    assert "--weights-key ema" in found.notes[0]
    averaged = load_model(str(path), weights_key="ema")
    assert value_of(dict(averaged.module.state_dict())) == 2
    torch.save({"ema": module_filled(2), "model": None}, path)
    assert value_of(dict(load_model(str(path)).module.state_dict())) == 2


def test_two_pickled_modules_of_unknown_use_are_refused(tmp_path: Path) -> None:
    torch.save({"one": module_filled(1), "two": module_filled(2)}, tmp_path / "net.pt")
    with pytest.raises(CompressorError, match="several weights for a network"):
        load_model(str(tmp_path / "net.pt"))


@pytest.mark.parametrize("options", [{"weights_key": "ema"}, {"ignore_unexpected": ["aux.*"]}])
def test_options_about_weights_need_a_file_with_some(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="about weights in a file"):
        load_model("torchvision:resnet18", **options)
