"""Mixtures of experts: widths and whole experts go, and transformers loads what is left."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

pytest.importorskip("transformers", reason="transformers is not installed")

from folders import make_model, save_model
from test_hf_format import Told, compressed, load
from twin import random_keep

import compressor
from compressor.calls import Call
from compressor.errors import CompressorError
from compressor.graph.analysis import analyse
from compressor.graph.axes import keep_mask
from compressor.graph.mixtures import EXPERTS
from compressor.graph.network import Network
from compressor.graph.trace import trace
from compressor.records import ExampleInputs, Group, Trace
from compressor.score.criterion import Calibration, Material
from compressor.score.routing import routed_energies
from compressor.slicing import as_module, slice_network

MIXTRAL, QWEN, OLMOE = "MixtralForCausalLM", "Qwen3MoeForCausalLM", "OlmoeForCausalLM"
QWEN2, GPT_OSS = "Qwen2MoeForCausalLM", "GptOssForCausalLM"
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in (OLMOE, QWEN2, GPT_OSS)]

IDS = torch.randint(60, (3, 8), generator=torch.Generator().manual_seed(0))
MASK = (torch.arange(8) < torch.tensor([[8], [5], [7]])).long()
INPUTS = {"input_ids": IDS, "attention_mask": MASK}


@cache
def analysed(name: str) -> tuple[nn.Module, Trace, Network]:
    """A model in float64, which nobody changes, with its trace and its analysis.

    Its experts are looped over, since grouped products know no float64.
    """
    model: Any = make_model(name).double()
    model.set_experts_implementation("eager")
    traced = trace(model, ExampleInputs((), {name: x[:2] for name, x in INPUTS.items()}))
    return model, traced, analyse(traced)


def groups_of(network: Network, role: str) -> list[Group]:
    return [group for group in network.groups if group.role == role]


def keep_of(network: Network, seed: int) -> dict[str, tuple[int, ...]]:
    """Some of the channels, heads and experts, of these at least as many as are chosen."""
    keep = random_keep(network, seed)
    generator = torch.Generator().manual_seed(seed)
    for group in groups_of(network, EXPERTS):
        order = torch.randperm(group.size, generator=generator)[: group.least + seed % 2]
        keep[group.name] = tuple(sorted(order.tolist()))
    return keep


class NeverChosen(TorchFunctionMode):
    """Makes the logits of the lost experts minus infinity, by the routers' weights."""

    def __init__(self, lost: Mapping[int, Tensor]) -> None:
        super().__init__()
        self.lost = lost

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        lost = self.lost.get(id(args[1])) if func is F.linear else None
        return result if lost is None else result.index_fill(-1, lost, -torch.inf)


@contextmanager
def twin(name: str, keep: Mapping[str, tuple[int, ...]]) -> Iterator[nn.Module]:
    """The dense class, its experts in a loop, that ignores what is dropped."""
    model, _, network = analysed(name)
    dense: Any = copy.deepcopy(model)
    tensors, masks = dict(dense.named_parameters()), network.masks(keep)
    lost_by_router: dict[int, Tensor] = {}
    for group in (group for group in network.groups if group.name in keep):
        for member in group.members:
            mask = keep_mask(network.tensors[member.tensor][member.dim], masks)
            lost, tensor = torch.from_numpy(~mask).nonzero()[:, 0], tensors[member.tensor]
            if group.role == EXPERTS and tensor.dim() == 2 and "bias" not in member.tensor:
                lost_by_router[id(tensor)] = lost
            elif member.contracted:
                with torch.no_grad():
                    tensor.index_fill_(member.dim, lost, 0)
    with NeverChosen(lost_by_router), torch.no_grad():
        yield dense


@pytest.mark.parametrize("name", [MIXTRAL, QWEN, *SLOW])
def test_what_is_left_is_the_network_whose_other_logits_are_minus_infinity(name: str) -> None:
    _, traced, network = analysed(name)
    keep = keep_of(network, seed=1)
    sliced = slice_network(traced, network, keep)
    assert sliced.plan.form == "class"
    assert not sliced.plan.stand_ins
    assert sliced.module.config._experts_implementation == "eager"  # as it was, not as captured
    with twin(name, keep) as dense:
        expected = dense(**INPUTS).logits
    assert expected.std() > 0.01
    for form in (as_module(sliced.program), sliced.module):
        with torch.no_grad():
            found = form(**INPUTS)["logits"]
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", [MIXTRAL, QWEN, *SLOW])
def test_experts_and_their_widths_are_groups(name: str) -> None:
    _, _, network = analysed(name)
    experts = groups_of(network, EXPERTS)
    assert [(group.size, group.least, group.exact) for group in experts] == [(6, 2, False)] * 2
    widths = [g for g in groups_of(network, "channels") if "experts" in g.name]
    assert len(widths) == 2
    assert all(group.exact and group.size in (24, 48) for group in widths)
    assert not network.uncounted
    assert set(network.routers) == {group.name for group in experts}


class Toy(nn.Module):
    """A mixture whose chosen experts are read by something else, too."""

    def __init__(self, misuse: str = "") -> None:
        super().__init__()
        self.router, self.misuse = nn.Linear(8, 5), misuse
        self.up, self.down = (nn.Parameter(torch.randn(5, 8, 8) / 3) for _ in range(2))
        self.bias, self.out = nn.Parameter(torch.randn(5, 8)), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        grouped = torch.ops.transformers.grouped_mm_fallback
        logits = self.router(x)
        if self.misuse == "mean":
            logits = logits - logits.mean(-1, keepdim=True)
        weights, chosen = logits.softmax(-1).topk(2)
        experts, order = chosen.reshape(-1).sort()
        bins = 6 if self.misuse == "bins" else 5
        counts = torch.histc(experts.float(), bins, 0, bins - 1)
        counts = counts if bins == 5 else counts[:5]
        ends = counts.cumsum(0, dtype=torch.int32)
        y = grouped(grouped(x[order // 2], self.up, ends).relu(), self.down, ends)
        y = (y + self.bias[experts]) * weights.reshape(-1)[order].unsqueeze(-1)
        if self.misuse == "number":
            y = y * experts.unsqueeze(-1)
        found = self.out(torch.zeros_like(x).index_add(0, order // 2, y))
        return (found, chosen) if self.misuse == "output" else found


def experts_of_toy(misuse: str) -> list[Group]:
    import transformers.integrations.moe  # noqa: F401 - registers the operator

    torch.manual_seed(0)
    traced = trace(Toy(misuse).eval(), ExampleInputs((torch.randn(4, 8),)))
    return groups_of(analyse(traced), EXPERTS)


def test_what_picks_from_a_stack_goes_with_it() -> None:
    (experts,) = experts_of_toy("")
    names = {(member.tensor, member.dim) for member in experts.members}
    assert names == {(n, 0) for n in ("router.weight", "router.bias", "up", "down", "bias")}


@pytest.mark.parametrize("misuse", ["mean", "bins", "number", "output"])
def test_experts_stay_where_their_positions_mean_more(misuse: str) -> None:
    assert not experts_of_toy(misuse)


# -- scores ---------------------------------------------------------------------------------------


def test_scores_are_the_energies_of_what_is_not_padding() -> None:
    """Compared with what the layers of the class give, token by token."""
    model, traced, network = analysed(MIXTRAL)
    call = Call((), INPUTS)
    calibration = Calibration(traced, [(call, None)], lambda outputs, target: outputs[0].mean())
    material = Material(network, dict(model.named_parameters()), calibration, unit=None)
    found = routed_energies(material)
    for name, experts in model.named_modules():
        if name.endswith(".experts"):
            added, widths = energies_of(model, experts)
            gate = f"{name.removesuffix('experts')}gate.weight:0 experts"
            torch.testing.assert_close(torch.tensor(found[gate][0]), added / added.sum())
            channels = torch.tensor(found[f"{name}.gate_up_proj:1"][0])
            torch.testing.assert_close(channels, widths / widths.sum())


def energies_of(model: nn.Module, experts: Any) -> tuple[Tensor, Tensor]:
    """What each expert adds to tokens, and what is in the products of each of their channels."""
    given: list[tuple[Tensor, Tensor, Tensor]] = []
    hook = experts.register_forward_pre_hook(lambda module, args: given.append(args))
    with torch.no_grad():
        model(**INPUTS)
    hook.remove()
    added, widths = torch.zeros(6, dtype=torch.float64), torch.zeros(48, dtype=torch.float64)
    for x, chosen, weights, counts in zip(*given[0], MASK.reshape(-1), strict=True):
        for expert, weight in zip(chosen.tolist(), weights, strict=True):
            gate, up = (experts.gate_up_proj[expert] @ x).detach().chunk(2)
            inner, down = experts.act_fn(gate) * up, experts.down_proj[expert].detach()
            added[expert] += counts * (weight * (down @ inner)).square().sum()
            widths += counts * inner.square() * down.square().sum(0)
    return added, widths


# -- folders --------------------------------------------------------------------------------------


def check_folder(found: Any, out: Path) -> None:
    with torch.no_grad():
        expected = found.module(IDS).logits
        got = load(out / "hf")(IDS).logits
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert got.std() > 0.01


@pytest.mark.parametrize(
    ("name", "number", "width"),
    [
        (MIXTRAL, "num_local_experts", "intermediate_size"),
        pytest.param(QWEN, "num_experts", "moe_intermediate_size", marks=pytest.mark.slow),
        pytest.param(OLMOE, "num_experts", "intermediate_size", marks=pytest.mark.slow),
    ],
)
def test_a_configuration_says_how_many_experts_are_left(
    name: str, number: str, width: str, tmp_path: Path
) -> None:
    folder, told = save_model(name, tmp_path / "m"), Told()
    found = compressed(folder, of="params", ratio=0.4, prune=("experts",), watch=told)
    found.save(tmp_path / "out")
    before, after = load(folder).config, load(tmp_path / "out/hf").config
    assert 2 <= getattr(after, number) < getattr(before, number)
    assert getattr(after, width) < getattr(before, width)
    assert after.num_experts_per_tok == 2
    assert any("experts go (approximate)" in note for note in told.notes)
    check_folder(found, tmp_path / "out")


def test_experts_stay_unless_they_are_asked_for(tmp_path: Path) -> None:
    folder = save_model(QWEN, tmp_path / "m")
    found = compressed(folder, ratio=0.3)
    found.save(tmp_path / "out")
    before, after = load(folder).config, load(tmp_path / "out/hf").config
    assert after.num_experts == before.num_experts
    assert after.moe_intermediate_size in (8, 16)  # what kernels for experts take
    check_folder(found, tmp_path / "out")
    assert found.report["after"]["macs"] < found.report["before"]["macs"]


@pytest.mark.slow
def test_with_data_experts_go_that_add_least(tmp_path: Path) -> None:
    """Two experts of each layer give next to nothing, though their weights are the largest."""

    def leave_out(model: Any) -> Any:
        with torch.no_grad():
            for layer in model.model.layers:
                layer.mlp.experts.down_proj[[1, 4]] *= 1e-5
                layer.mlp.experts.gate_up_proj[[1, 4]] *= 100
        return model

    folder = save_model(MIXTRAL, tmp_path / "m", leave_out)
    rows = [{"input_ids": ids} for ids in torch.randint(60, (8, 12))]
    found = compressed(
        folder, of="params", ratio=0.3, prune=("experts",), data=rows, protect=("*attn*",)
    )
    kept = [tuple(g["keep"]) for g in found.plan.groups.values() if g["role"] == EXPERTS]
    assert kept == [(0, 2, 3, 5)] * 2


def test_masks_do_not_stand_for_experts_that_go() -> None:
    model, traced, network = analysed(MIXTRAL)
    plan = slice_network(traced, network, keep_of(network, 1)).plan
    with pytest.raises(CompressorError, match="zeros do not keep a router"):
        compressor.masked(model, plan)
