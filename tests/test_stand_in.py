"""Modules whose code cannot follow run their traced operators, within the user's own class."""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import Case
from tiny import compress
from torch import Tensor, nn
from twin import (
    Analysed,
    analysed_case,
    assert_same,
    assert_smaller,
    masked_twin,
    outputs,
    random_keep,
    sliced,
)

import compressor
from compressor.errors import CompressorError
from compressor.records import Plan
from compressor.slicing import Sliced, apply_plan, as_module
from compressor.slicing.stand_in import StandIn


class Halves(nn.Module):
    """Two halves that need not lose the same channels, cut by `chunk`, which cuts evenly."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(6, 16)
        self.left, self.right = nn.Linear(8, 6), nn.Linear(8, 6)
        self.norm, self.drop = nn.BatchNorm1d(16), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(self.up(x).transpose(1, 2)).transpose(1, 2)
        a, b = self.drop(hidden).chunk(2, -1)
        return self.left(a.relu()) + self.right(b.tanh())


class Heads(nn.Module):
    """The width of a head is computed from the input's, which stays."""

    def __init__(self, width: int = 12, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(n, t, self.heads * (c // self.heads)))


class Two(nn.Module):
    """A stem, two blocks of one class, a head; the blocks' inputs and outputs are prunable too."""

    def __init__(self, kind: type[nn.Module], width: int) -> None:
        super().__init__()
        self.stem = nn.Linear(5, width)
        self.first, self.second = kind(), kind()
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.first(x)
        return self.head(x + self.second(x))


class Attends(nn.Module):
    """nn.MultiheadAttention, as most call it: the averaged weights are made and not used."""

    def __init__(self, **choices: Any) -> None:
        super().__init__()
        self.choices = choices
        self.embed, self.context = nn.Linear(5, 12), nn.Linear(3, 12)
        self.attention = nn.MultiheadAttention(12, 4, dropout=0.1, batch_first=True)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x, other = self.embed(x), self.context(x[..., :3])
        return self.head(x + self.attention(x, other, other, **self.choices)[0])


def sharing() -> nn.Module:
    """Both blocks have one layer in common, which therefore has three names."""
    model = Two(Halves, 6)
    model.common = model.first.right = model.second.right
    return model


CASES: Mapping[str, Case] = {
    "halves": Case(lambda: Two(Halves, 6), (7, 5)),
    "sharing": Case(sharing, (7, 5)),
    "heads": Case(lambda: Two(Heads, 12), (7, 5), queries={}),
    "attention": Case(Attends, (7, 5)),
    "attention_alone": Case(lambda: Attends(need_weights=False), (7, 5)),
    "encoder": Case(
        lambda: nn.Sequential(
            nn.Linear(5, 12),
            nn.TransformerEncoder(
                nn.TransformerEncoderLayer(12, 4, 10, batch_first=True),
                2,
                enable_nested_tensor=False,
            ),
            nn.Linear(12, 4),
        ),
        (7, 5),
    ),
}
PATHS = {
    "halves": ["first", "second"],
    "sharing": ["first", "second"],
    "heads": ["first", "second"],
    "attention": ["attention"],
    "attention_alone": ["attention"],
    "encoder": ["1.layers.0.self_attn", "1.layers.1.self_attn"],
}


@cache
def of_case(name: str) -> Analysed:
    return analysed_case(CASES[name])


@cache
def found(name: str) -> Sliced:
    of = of_case(name)
    return sliced(of, random_keep(of.network, seed=3))


@pytest.mark.parametrize("name", CASES)
def test_the_class_follows_with_the_blocks_that_cannot_replaced(name: str) -> None:
    of, result = of_case(name), found(name)
    keep = random_keep(of.network, seed=3)
    assert result.plan.form == "class", result.plan.obstacle
    assert type(result.module) is type(of.model)
    assert sorted(result.plan.stand_ins) == PATHS[name]
    replaced = [path for path, m in result.module.named_modules() if isinstance(m, StandIn)]
    assert sorted(replaced) == PATHS[name]
    assert_smaller(result, of, keep)
    assert result.difference <= 1e-10
    assert_same(as_module(result.program), result.module, of.case)
    assert_same(masked_twin(of, keep), result.module, of.case)


def test_the_halves_are_unequal() -> None:
    """Otherwise the class itself would do, and nothing were tested."""
    module = found("halves").module
    assert module.first.left.in_features != module.first.right.in_features


@pytest.mark.parametrize("name", CASES)
def test_names_of_parameters_are_those_of_the_original(name: str) -> None:
    of, module = of_case(name), found(name).module
    assert list(module.state_dict()) == list(of.model.state_dict())
    assert [n for n, _ in module.named_parameters()] == [n for n, _ in of.model.named_parameters()]
    other = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(module.state_dict())
    assert_same(module, other, of.case, within=0.0)


@pytest.mark.parametrize("name", CASES)
def test_a_copy_is_independent(name: str) -> None:
    module, case = found(name).module, of_case(name).case
    inputs = case.inputs(2)
    before = outputs(module, *inputs)[0]
    other = copy.deepcopy(module)
    assert torch.equal(outputs(other, *inputs)[0], before)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
    other.train()
    other(*inputs)
    assert not torch.equal(outputs(other, *inputs)[0], before)
    assert torch.equal(outputs(module, *inputs)[0], before)


def test_a_module_with_stand_ins_can_be_pickled() -> None:
    module, case = found("halves").module, of_case("halves").case
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    assert_same(module, torch.load(file, weights_only=False), case, within=0.0)


@pytest.mark.parametrize("name", ["halves", "attention"])
def test_an_input_of_another_length_is_refused(name: str) -> None:
    module = found(name).module
    inputs = torch.randn(2, 9, 5, dtype=torch.float64)
    with pytest.raises(CompressorError, match=r"traced for inputs of shape \[None, 7, ") as refused:
        module(inputs)
    assert "[2, 9, " in refused.value.what
    assert "--input" in refused.value.next_step


# -- training ------------------------------------------------------------------------------------


def test_train_and_eval_reach_the_traced_operators() -> None:
    """Dropout draws, batch norm takes the batch's statistics and updates its own; eval undoes."""
    module = copy.deepcopy(found("halves").module)
    inputs = of_case("halves").case.inputs(4)
    before, statistics = outputs(module, *inputs)[0], module.first.norm.running_mean.clone()
    module.train()
    assert all(m.training for m in module.modules())
    torch.manual_seed(0)
    first = outputs(module, *inputs)[0]
    second = outputs(module, *inputs)[0]
    assert not torch.equal(first, second)
    assert not torch.equal(module.first.norm.running_mean, statistics)
    module.first.norm.running_mean.copy_(statistics)
    for path in ("first", "second"):
        fresh = found("halves").module.get_submodule(path).norm
        module.get_submodule(path).norm.load_state_dict(fresh.state_dict())
    assert torch.equal(outputs(module.eval(), *inputs)[0], before)


def test_training_computes_what_the_class_would() -> None:
    """The masked twin is the user's own code: same batch statistics, same gradients."""
    of = of_case("halves")
    module = copy.deepcopy(found("halves").module)
    twin = masked_twin(of, random_keep(of.network, seed=3))
    inputs = of.case.inputs(4)
    for form in (module, twin):
        for layer in form.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0
        form.train()
    for part in (module.first, module.second):
        for node in part._traced.graph.nodes:
            if "dropout" in str(node.target):
                node.update_arg(1, 0.0)
        part._traced.recompile()
    expected, computed = twin(*inputs), module(*inputs)
    torch.testing.assert_close(computed, expected, rtol=1e-10, atol=1e-10)
    expected.square().sum().backward()
    computed.square().sum().backward()
    for name, parameter in module.named_parameters():
        wanted = twin.get_parameter(name).grad
        for dim, kept in found("halves").plan.tensors.get(name, {}).items():
            wanted = wanted.index_select(dim, torch.tensor(kept))
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_fine_tuning_changes_every_weight(name: str) -> None:
    module = copy.deepcopy(found(name).module).train()
    inputs = of_case(name).case.inputs(8)
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    target = torch.randn(8, 7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    optimiser = torch.optim.SGD(module.parameters(), lr=1e-4)
    losses = []
    for _ in range(5):
        torch.manual_seed(0)
        loss = (module(*inputs) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    unchanged = {n for n, p in module.named_parameters() if torch.equal(p, before[n])}
    assert not {n for n in unchanged if not n.endswith("bias")}
    assert min(losses[1:]) < losses[0]


# -- other types and devices ---------------------------------------------------------------------


class Casting(Halves):
    """Decides in single precision, whatever the rest computes in."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.up(x)
        a, b = (hidden * (hidden.float() > 0)).chunk(2, -1)
        return self.left(a) + self.right(b)


def test_both_forms_follow_to_other_types_and_devices() -> None:
    """Export holds what `float` takes to the traced type and device, by an assertion."""
    of = analysed_case(Case(lambda: Two(Casting, 6), (7, 5)))
    result = sliced(of, random_keep(of.network, seed=3))
    assert isinstance(result.module.first, StandIn)
    inputs = of.case.inputs(3)
    for form in (result.module, as_module(result.program)):
        (expected,) = outputs(form, *inputs)
        (single,) = outputs(copy.deepcopy(form).float(), *(x.float() for x in inputs))
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), expected, rtol=1e-4, atol=1e-4)
        (moved,) = outputs(copy.deepcopy(form).to("meta"), *(x.to("meta") for x in inputs))
        assert moved.is_meta
        assert moved.shape == (3, 7, 4)


# -- coming back ---------------------------------------------------------------------------------


def test_a_plan_alone_does_not_have_the_operators() -> None:
    result = found("halves")
    plan = Plan.from_json(result.plan.to_json())
    with pytest.raises(CompressorError, match="2 modules run traced operators") as refused:
        apply_plan(plan, CASES["halves"].build().double())
    assert refused.value.where == "first, second"
    assert "compressor.load(folder, factory)" in refused.value.next_step


def test_a_plan_and_the_program_rebuild_the_class() -> None:
    result, of = found("heads"), of_case("heads")
    plan = Plan.from_json(result.plan.to_json())
    rebuilt = apply_plan(plan, of.case.build().double().eval(), lambda: result.program)
    rebuilt.load_state_dict(result.module.state_dict())
    assert_same(result.module, rebuilt, of.case, within=0.0)


@pytest.mark.parametrize("name", ["halves", "attention"])
def test_a_saved_result_comes_back_with_its_stand_ins(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    build = CASES[name].build
    inputs = torch.randn(2, 7, 5)
    model = build().eval()
    result = compress(
        model, inputs, ratio=0.3, best_effort=True, criterion="random", protect="head", epochs=0
    )
    assert sorted(result.plan.stand_ins) == PATHS[name]
    result.save(tmp_path / "out")
    loaded = compressor.load(tmp_path / "out", build)
    assert type(loaded) is type(model)
    assert not loaded.training
    other = torch.randn(3, 7, 5)
    assert torch.equal(outputs(loaded, other)[0], outputs(result.module, other)[0])
    assert [type(m) for m in loaded.modules()].count(StandIn) == len(PATHS[name])
    loaded.train()(other).sum().backward()
    assert all(p.grad is not None for p in loaded.parameters())
