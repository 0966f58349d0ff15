"""Weights that are computed from weights, what learns, and types of numbers."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

import compressor
from compressor.errors import CompressorError, UsageError
from compressor.graph.trace import copy_to_cpu
from compressor.loading.plain import (
    give_back_types,
    make_plain,
    put_all_back,
    require_kept,
    types_of,
    work_in_float32,
)

Change = Callable[[nn.Module], nn.Module]


class Net(nn.Module):
    """Two layers whose weights are changed as asked, and a frozen one."""

    def __init__(self, change: Change = lambda layer: layer) -> None:
        super().__init__()
        self.a, self.b = change(nn.Conv2d(3, 12, 3)), change(nn.Conv2d(12, 16, 3, bias=False))
        self.c = nn.Linear(16, 4)
        self.c.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(functional.relu(self.b(functional.relu(self.a(x)))).mean((2, 3)))


class Standardised(nn.Conv2d):
    """A weight of mean 0 and deviation 1 over what each filter reads."""

    def forward(self, x: Tensor) -> Tensor:
        mean, std = (f(self.weight, (1, 2, 3), keepdim=True) for f in (torch.mean, torch.std))
        return self._conv_forward(x, (self.weight - mean) / (std + 1e-5), self.bias)


class LowRank(nn.Linear):
    """A weight that is the sum of its own and a product."""

    def __init__(self, size: int) -> None:
        super().__init__(size, size)
        self.up, self.down = nn.Parameter(torch.randn(size, 2)), nn.Parameter(torch.randn(2, size))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight + self.up @ self.down, self.bias)


def masked_half(layer: nn.Module) -> nn.Module:
    """Every other filter of the layer is zero."""
    mask = torch.zeros_like(layer.weight)
    mask[::2] = 1
    return prune.custom_from_mask(layer, "weight", mask)


def _quietly(change: Change, layer: nn.Module) -> nn.Module:
    """torch says that the hook is old."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return change(layer)


WAYS: dict[str, Change] = {
    "weight norm": parametrizations.weight_norm,
    "weight norm, as a hook": lambda layer: _quietly(weight_norm, layer),
    "spectral norm": parametrizations.spectral_norm,
    "spectral norm, as a hook": spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "a mask": masked_half,
}


def net(change: Change, seed: int = 0) -> Net:
    torch.manual_seed(seed)
    made = Net(change)
    made(torch.randn(2, 3, 8, 8))
    return made.eval()


def worst(a: Tensor, b: Tensor) -> float:
    return float((a.detach().double() - b.detach().double()).abs().max())


@pytest.mark.parametrize("way", WAYS)
def test_weights_that_act_become_plain_on_a_copy(way: str) -> None:
    original, x = net(WAYS[way]), torch.randn(2, 3, 8, 8)
    before = {name: value.clone() for name, value in original.state_dict().items()}
    expected = original(x).detach()
    plain = make_plain(original, copy_to_cpu)
    assert "a, b" in plain.notes[0]
    assert plain.module.state_dict().keys() == Net().state_dict().keys()
    assert next(iter(dict(plain.module.named_parameters()))) == "a.weight"
    assert worst(plain.module(x), expected) < 1e-6
    learning = {n: p.requires_grad for n, p in plain.module.named_parameters()}
    assert learning == {n: n != "c.bias" for n in learning}
    assert original.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[n]) for n, value in original.state_dict().items())
    assert torch.equal(original(x), expected)
    loaded = Net()
    loaded.load_state_dict(plain.module.state_dict())
    plain.module.load_state_dict(loaded.state_dict())


def test_frozen_sources_make_a_frozen_weight_and_tied_ones_a_tied_weight() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    for layer in model:
        parametrizations.weight_norm(layer)
    lists = [layer.parametrizations.weight for layer in model]
    for name in ("original0", "original1"):
        getattr(lists[0], name).requires_grad_(False)
        setattr(lists[1], name, getattr(lists[0], name))
    plain = make_plain(model, copy_to_cpu).module
    assert plain[0].weight is plain[1].weight
    assert not plain[0].weight.requires_grad
    assert plain[0].bias.requires_grad


@pytest.mark.parametrize("layer", [Standardised(3, 6, 3, padding=1), LowRank(5)])
def test_a_weight_that_forward_computes_becomes_plain(layer: nn.Module) -> None:
    x = torch.randn(2, 3, 9, 9) if isinstance(layer, nn.Conv2d) else torch.randn(2, 5)
    plain = make_plain(nn.Sequential(layer), copy_to_cpu).module[0]
    assert type(plain) in (nn.Conv2d, nn.Linear)
    assert {n for n, _ in plain.named_parameters()} == {"weight", "bias"}
    assert worst(plain(x), layer(x)) < 1e-6


def test_a_layer_that_only_pads_or_follows_its_input_stays_its_own() -> None:
    class Padded(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(functional.pad(x, (1, 1, 1, 1)))

    class Gated(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return functional.linear(x, self.weight * x.mean(), self.bias)

    model = nn.Sequential(Padded(3, 4, 3), Gated(5, 5))
    assert make_plain(model, copy_to_cpu).module is model


def test_an_unknown_hook_that_computes_a_weight_is_refused_by_name() -> None:
    def doubled(layer: nn.Module, _: Any) -> None:
        layer.weight = layer.weight_raw * 2

    model = nn.Sequential(nn.Linear(4, 4))
    model[0].weight_raw = model[0]._parameters.pop("weight")
    model[0].register_forward_pre_hook(doubled)
    model(torch.randn(1, 4))
    with pytest.raises(CompressorError, match=r"0\.weight is computed .*doubled"):
        make_plain(model, copy_to_cpu)


def test_a_masked_network_in_bfloat16_comes_back_as_it_came(tmp_path: Path) -> None:
    """Its dead filters go first, its weights are plain, in its type, and what was frozen is."""
    dtype = torch.bfloat16
    x, model = torch.randn(1, 3, 8, 8, dtype=dtype), net(masked_half).to(dtype)
    result = compressor.compress(model, x, ratio=0.4, round_to=1)
    alive, kept = set(range(0, 16, 2)), set(result.plan.groups["b.weight:0"]["keep"])
    assert kept <= alive or alive <= kept
    assert {p.dtype for p in (*model.parameters(), *result.module.parameters())} == {dtype}
    assert result.report["model"]["type"] == "bfloat16"
    notes = " ".join(result.report["notes"])
    assert "pruning mask" in notes
    assert "bfloat16" in notes
    assert worst(result.module(x), compressor.masked(model, result.plan).module(x)) < 0.05
    result.save(tmp_path / "out")
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {dtype}
    loaded = compressor.load(tmp_path / "out", lambda: net(masked_half, seed=1))
    assert torch.equal(loaded(x), result.module(x))
    for module in (result.module, loaded, compressor.load_program(tmp_path / "out")):
        assert [n for n, p in module.named_parameters() if not p.requires_grad] == ["c.bias"]


@pytest.mark.parametrize("way", ["weight norm", "weight norm, as a hook", "a mask"])
def test_what_is_put_back_computes_the_same_and_learns_as_it_did(way: str) -> None:
    model = net(WAYS[way])
    plain = make_plain(model, copy_to_cpu)
    x = torch.randn(2, 3, 8, 8)
    expected = plain.module(x)
    put_all_back(plain.module, plain.computed, {})
    assert plain.module.state_dict().keys() == model.state_dict().keys()
    assert worst(plain.module(x), expected) < 1e-6
    again = {n: p.requires_grad for n, p in plain.module.named_parameters()}
    assert again == {n: p.requires_grad for n, p in model.named_parameters()}
    require_kept(plain.computed, refits=False)


@pytest.mark.parametrize(("way", "why"), [("spectral norm", "change"), ("a mask", "zeros")])
def test_what_cannot_be_put_back_exactly_is_refused(way: str, why: str) -> None:
    plain = make_plain(net(WAYS[way]), copy_to_cpu)
    with pytest.raises(UsageError, match=f"kept on a: .*{why}"):
        require_kept(plain.computed, refits=True)


def test_a_result_may_keep_how_its_weights_are_computed(tmp_path: Path) -> None:
    def change(layer: nn.Module) -> nn.Module:
        return WAYS["a mask" if layer.bias is None else "weight norm"](layer)

    model, x = net(change), torch.randn(1, 3, 8, 8)
    options = {"ratio": 0.4, "round_to": 1, "keep_parametrisations": True}
    result = compressor.compress(model, x, **options)
    assert result.module.state_dict().keys() == model.state_dict().keys()
    result.save(tmp_path / "out")
    loaded = compressor.load(tmp_path / "out", lambda: net(change, seed=1))
    assert worst(loaded(x), result.module(x)) == 0
    twin = compressor.masked(model, result.plan).module
    assert worst(result.module(x), twin(x)) < 1e-5


def test_types_go_to_float32_and_back_tensor_by_tensor() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).half()
    model[1].float()
    types = types_of(model)
    assert set(types) == {"0.weight", "0.bias"}
    before = copy.deepcopy(model.state_dict())
    work_in_float32(model)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    give_back_types(model, types)
    after = model.state_dict()
    assert all(torch.equal(v, after[n]) and v.dtype == after[n].dtype for n, v in before.items())


def test_a_float32_network_keeps_buffers_of_other_types() -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("table", torch.ones(2, dtype=torch.float64))
    assert not types_of(model)
    assert types_of(model.double()).keys() == {"weight", "bias", "table"}
