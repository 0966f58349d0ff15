"""Networks of torchvision, timm and transformers, each through a whole pass of the zoo: halved,
equal to its masked twin, agreeing with ONNX Runtime, counted as predicted; docs/zoo.md has all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.zoo.members import Settings
from tools.zoo.passing import Pass
from tools.zoo.zoos import ZOOS

QUICK = {"transformers": ("bert",)}
SLOW = {
    "torchvision": (
        *("resnet18", "mnasnet0_5", "efficientnet_b0", "alexnet"),
        *("squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x0_5"),
    ),
    "timm": (
        *("resnet10t", "cs3darknet_focus_s", "pit_ti_224", "mobilevit_xxs", "fasternet_t0"),
        *("starnet_s050", "regnetx_002", "swiftformer_xs", "deit_tiny_patch16_224"),
    ),
    "transformers": ("llama", "qwen3", "mamba", "whisper", "gpt2", "t5", "vit", "swin"),
}
CASES = [
    pytest.param(zoo, name, marks=marks)
    for named, marks in ((QUICK, ()), (SLOW, pytest.mark.slow))
    for zoo, names in named.items()
    for name in names
]


@pytest.mark.parametrize(("zoo", "name"), CASES)
def test_a_network_of_a_library_passes(zoo: str, name: str, tmp_path: Path) -> None:
    record = Pass({}, onnx_seconds=120).run(lambda: ZOOS[zoo].build(name, Settings(tmp_path)))
    assert record["status"] == "passed", record["error"]
    assert record["form"] == "class", record["obstacle"]
    assert record["removed"] >= 0.5
    assert record["twin"] < 1e-8
    assert record["onnx"] < 1e-4
