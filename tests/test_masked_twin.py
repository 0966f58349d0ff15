"""A sliced network computes what the dense one does when it ignores the dropped channels: in
float64, to rounding, with random and everywhere different numbers of channels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from cases import CASES, Case
from networks import CifarResNet, NormedMLP
from torch import Tensor, nn
from twin import (
    EXACT,
    Analysed,
    analysed,
    analysed_case,
    assert_alive,
    assert_same,
    assert_smaller,
    live,
    masked_twin,
    random_keep,
    sliced,
)

from compressor.slicing import as_module


def assert_exact(of: Analysed, seed: int, roles: frozenset[str] = EXACT) -> None:
    keep = random_keep(of.network, seed, roles)
    found, twin = sliced(of, keep), masked_twin(of, keep)
    assert_smaller(found, of, keep)
    assert_same(twin, as_module(found.program), of.case)
    assert_same(twin, found.module, of.case)


def assert_follows(of: Analysed, seed: int) -> None:
    assert sliced(of, random_keep(of.network, seed)).plan.form == "class"


SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", CASES)
def test_small_networks(name: str, seed: int) -> None:
    of = analysed(name)
    assert of.trace.batch_symbol
    assert_alive(of.model, of.case)
    assert_exact(of, seed)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.follows])
def test_the_class_follows(name: str) -> None:
    assert_follows(analysed(name), seed=3)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.queries])
def test_head_widths_with_silent_queries(name: str, seed: int) -> None:
    """What queries and keys contract is zeroed on one side; the softmax scale stays the old one."""
    assert_exact(analysed(name), seed, EXACT | {"head_width"})


def test_a_comparison_on_a_dead_network_is_refused() -> None:
    of = analysed("mlp")
    dead = of.case.build().double().eval()
    nn.init.zeros_(dead[-1].weight)
    with pytest.raises(AssertionError):
        assert_alive(dead, of.case)


def test_the_twin_notices_a_wrong_index() -> None:
    of = analysed("residual")
    keep = random_keep(of.network, 0)
    name, kept = next(iter(keep.items()))
    size = of.network.axes[name].size
    other = {**keep, name: tuple((i + 1) % size for i in kept)}
    with pytest.raises(AssertionError):
        assert_same(masked_twin(of, keep), sliced(of, other).module, of.case)


class NormedByHand(nn.Module):
    """`NormedMLP` on the kept channels of its stream and of its inner width, index by index."""

    def __init__(self, dense: NormedMLP, stream: Tensor, inner: Tensor) -> None:
        super().__init__()
        self.dense, self.stream, self.inner = dense, stream, inner

    def forward(self, x: Tensor) -> Tensor:
        net, s, i = self.dense, self.stream, self.inner
        x = F.linear(x, net.embed.weight[s], net.embed.bias[s])
        centred = x - x.mean(-1, keepdim=True)
        spread = (centred.square().mean(-1, keepdim=True) + net.norm.eps).sqrt()
        y = centred / spread * net.norm.weight[s] + net.norm.bias[s]
        y = F.gelu(F.linear(y, net.up.weight[i][:, s], net.up.bias[i]))
        x = x + F.linear(y, net.down.weight[s][:, i], net.down.bias[s])
        return F.linear(x, net.head.weight[:, s], net.head.bias)


@pytest.mark.parametrize("seed", range(3))
def test_a_stream_behind_layer_norm_is_the_layer_rebuilt_by_hand(seed: int) -> None:
    of = analysed("normed_mlp")
    keep = random_keep(of.network, seed, EXACT | {"stream"})
    stream, inner = (torch.tensor(keep[n]) for n in ("embed.weight:0 stream", "up.weight:0"))
    found = sliced(of, keep)
    assert found.plan.form == "class"
    by_hand = NormedByHand(of.model, stream, inner)
    assert_smaller(found, of, keep)
    for form in (as_module(found.program), found.module):
        assert_same(by_hand, form, of.case)


# -- networks that people have -------------------------------------------------------------------


def torchvision_case(name: str, side: int) -> Case:
    build: Callable[[], nn.Module] = getattr(torchvision.models, name)
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return Case(lambda: build(weights=None, **options), (3, side, side))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_torchvision_networks_on_small_images(name: str) -> None:
    of = analysed_case(torchvision_case(name, 64))
    assert_alive(of.model, of.case)
    assert_exact(of, seed=0)
    assert_follows(of, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnet50",
        "mobilenet_v2",
        "efficientnet_b0",
        "densenet121",
        "convnext_tiny",
    ],
)
def test_torchvision_networks(name: str, seed: int) -> None:
    of = analysed_case(torchvision_case(name, 224))
    assert_alive(of.model, of.case)
    assert_exact(of, seed)
    assert_follows(of, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_vision_transformer(seed: int) -> None:
    of = analysed_case(torchvision_case("vit_b_16", 224))
    assert {"heads", "channels"} <= {group.role for group in of.network.groups}
    assert_alive(of.model, of.case)
    assert_exact(of, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("depth", [20, 56])
def test_cifar_networks_with_padded_shortcuts(depth: int, seed: int) -> None:
    of = analysed_case(Case(lambda: CifarResNet(depth), (3, 32, 32)))
    assert_alive(of.model, of.case)
    assert_exact(of, seed)
    assert_follows(of, seed)


def test_weights_drawn_anew_make_a_network_alive() -> None:
    """As the library initialises it, this one computes zeros for every input."""
    case = torchvision_case("vit_b_16", 32)
    small = {"image_size": 32, "patch_size": 16, "num_layers": 1, "num_heads": 2}
    build = torchvision.models.VisionTransformer
    model = build(**small, hidden_dim=8, mlp_dim=8, num_classes=5).double().eval()
    with pytest.raises(AssertionError):
        assert_alive(model, case)
    assert_alive(live(model), case)
