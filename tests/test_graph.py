"""What the analysis finds: groups with their members and roles, and protections with reasons."""

from __future__ import annotations

import pytest
import torch
from cases import CASES, Case
from networks import CifarResNet
from torch import Tensor, nn
from torch_version import follows_branches
from twin import analysed, analysed_case

from compressor.errors import CompressorError
from compressor.graph.analysis import analyse
from compressor.graph.axes import leaves, same
from compressor.graph.network import Network
from compressor.graph.rules import RULES, Call, Equations
from compressor.graph.rules.call import fresh
from compressor.graph.trace import trace
from compressor.records import ExampleInputs, Protection, Trace


@torch.library.custom_op("compressor_tests::mystery", mutates_args=())
def mystery(x: Tensor) -> Tensor:
    return x.flip(1)


@mystery.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class WithMystery(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = Unknown()
        self.rest = nn.Sequential(nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.body(x))


class Unknown(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(mystery(self.a(x)).relu())


def network_of(model: nn.Module, *inputs: Tensor) -> tuple[Trace, Network]:
    traced = trace(model, ExampleInputs(inputs))
    return traced, analyse(traced)


def members(network: Network) -> dict[str, set[tuple[str, int]]]:
    return {g.name: {(m.tensor, m.dim) for m in g.members} for g in network.groups}


def protection_of(network: Network, place: str) -> Protection:
    (found,) = [p for p in network.protections if place in p.tensors]
    return found


def test_an_operator_without_a_rule_protects_what_reaches_it() -> None:
    _, network = network_of(WithMystery(), torch.randn(2, 5))
    found = protection_of(network, "body.a.weight:0")
    assert "compressor_tests.mystery.default has no rule" in found.reason
    assert set(found.tensors) == {"body.a.weight:0", "body.a.bias:0", "body.b.weight:1"}
    assert found.size == 8
    line = Unknown.forward.__code__.co_firstlineno + 1
    assert found.place == f"body (test_graph.py:{line})"
    assert set(members(network)) == {"body.b.weight:0", "rest.0.weight:0"}


def test_a_rule_that_is_taken_away_protects_too() -> None:
    of = analysed("residual")
    fewer = {name: rule for name, rule in RULES.items() if name != "relu.default"}
    assert not analyse(of.trace, fewer).groups
    assert len(of.network.groups) == 2


def test_a_rule_with_wrong_sizes_is_a_defect_that_is_said() -> None:
    def wrong(call: Call) -> Equations:
        return Equations((fresh([1, 1]),))

    with pytest.raises(CompressorError, match=r"the rule for relu\.default says sizes"):
        analyse(analysed("mlp").trace, {**RULES, "relu.default": wrong})


def test_inputs_outputs_and_embedding_rows_are_protected() -> None:
    network = analysed("language_model").network
    rows = protection_of(network, "words.weight:0")
    assert rows.reason == "rows are looked up by data"
    assert rows.size == 11
    mlp = analysed("mlp").network
    assert protection_of(mlp, "0.weight:1").reason == "a model input"
    assert protection_of(mlp, "7.weight:0").reason == "a model output"
    assert {"7.weight:0", "7.bias:0"} == set(protection_of(mlp, "7.weight:0").tensors)


def test_kernel_positions_are_not_worth_a_word() -> None:
    network = analysed("residual").network
    assert not any(":2" in t or ":3" in t for p in network.protections for t in p.tensors)


def test_a_residual_stream_is_one_group() -> None:
    found = members(analysed("residual").network)
    assert found["stem.weight:0"] == {
        *(("stem.weight", 0), ("stem.bias", 0), ("a.weight", 1)),
        *(("b.weight", 0), ("b.bias", 0), ("head.weight", 1)),
    }
    inner = {("a.weight", 0), ("b.weight", 1)}
    norm = {(f"bn.{name}", 0) for name in ("weight", "bias", "running_mean", "running_var")}
    assert found["a.weight:0"] == inner | norm


def test_members_say_where_channels_are_consumed() -> None:
    (stream,) = [g for g in analysed("residual").network.groups if g.name == "stem.weight:0"]
    consumers = {(m.tensor, m.dim) for m in stream.members if m.contracted}
    assert consumers == {("a.weight", 1), ("head.weight", 1)}


def test_a_padded_shortcut_has_widths_of_its_own() -> None:
    """Where zeros are padded, nothing but the block adds to them: those channels are free."""
    network = analysed("padded_shortcut").network
    assert sorted(g.size for g in network.groups) == [3, 3, 6, 12]


@pytest.mark.parametrize(
    ("name", "roles"),
    [
        ("residual", {"channels": 2}),
        ("fused_attention", {"channels": 1, "heads": 1, "head_width": 1}),
        ("separate_attention", {"channels": 1, "heads": 1, "head_width": 2}),
        ("grouped_query", {"channels": 1, "heads": 2, "head_width": 2}),
        ("encoder_layer", {"stream": 1, "channels": 1, "heads": 1, "head_width": 1}),
        ("normed_mlp", {"stream": 1, "channels": 1}),
        ("group_norm", {"channels": 2, "stream": 2}),
        ("squeeze_excite", {"channels": 2}),
    ],
)
def test_roles(name: str, roles: dict[str, int]) -> None:
    found = [group.role for group in analysed(name).network.groups]
    assert {role: found.count(role) for role in found} == roles


def test_rotary_pairs_stay_together() -> None:
    """Four numbers per query head, in two pairs; the frequencies lose the same places."""
    network = analysed("grouped_query").network
    (pairs,) = [g for g in network.groups if g.name == "q.weight:0 head_width"]
    assert pairs.size == 2
    assert ("angles", 1) in {(m.tensor, m.dim) for m in pairs.members}


def test_tied_tensors_have_one_expression() -> None:
    of = analysed("tied_layers")
    network = of.network
    assert network.aliases == {"right.weight": "left.weight"}
    assert all(map(same, network.tensors["right.weight"], network.tensors["left.weight"]))
    stored = [m.tensor for g in network.groups for m in g.members]
    assert "right.weight" not in stored
    assert len(of.model.left.weight) * 6 + 7 * 2 + 7 * 4 + 4 == network.cost.params() - (
        sum(p.numel() for layer in (of.model.stem, of.model.twice) for p in layer.parameters())
    )


class SharedMemory(nn.Module):
    """Two weights that are overlapping views of one storage."""

    def __init__(self) -> None:
        super().__init__()
        whole = torch.randn(9, 5)
        self.register_buffer("a", whole[:6])
        self.register_buffer("b", whole[3:])
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(nn.functional.linear(x, self.a) + nn.functional.linear(x, self.b))


def test_overlapping_memory_is_protected() -> None:
    _, network = network_of(SharedMemory(), torch.randn(2, 5))
    assert not network.groups
    assert protection_of(network, "out.weight:1").reason == "shares memory"


class SideBranch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.forgotten = nn.Linear(5, 6), nn.Linear(5, 6)
        self.head, self.auxiliary = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.used(x).relu()
        return (self.head(x), self.auxiliary(x)) if self.training else (self.head(x),)


def test_parameters_that_only_training_uses_are_members_and_forgotten_ones_are_protected() -> None:
    traced, network = network_of(SideBranch(), torch.randn(2, 5))
    assert traced.training is not None
    assert any("nor does training" in note for note in traced.notes)
    (group,) = network.groups
    assert ("auxiliary.weight", 1) in {(m.tensor, m.dim) for m in group.members}
    assert protection_of(network, "forgotten.weight:0").reason == "no operator uses it"


def test_a_tied_parameter_is_used_under_any_of_its_names() -> None:
    of = analysed("tied_layers")
    assert of.trace.training is None
    assert of.trace.notes == ()


class FixedBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 4), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).relu().reshape(1, 8))


def test_a_static_batch_is_noted() -> None:
    traced, network = network_of(FixedBatch(), torch.randn(2, 5))
    assert traced.batch_symbol is None
    assert any("the batch is static" in note for note in traced.notes)
    assert network.cost.batch == 2
    assert network.cost.macs() * 2 == 2 * 5 * 4 + 8 * 3


def test_a_batch_of_one_is_repeated_so_that_it_stays_free() -> None:
    traced, _ = network_of(nn.Linear(5, 3), torch.randn(1, 5))
    assert traced.batch_symbol
    assert traced.batch == 2


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.b(y.relu() if y.sum().item() > 0 else y.tanh())


@follows_branches
def test_a_branch_on_values_is_captured_with_a_note() -> None:
    traced, network = network_of(Branching(), torch.randn(2, 5))
    assert traced.branched
    assert any("branches on values" in note for note in traced.notes)
    assert [group.size for group in network.groups] == [6]


def test_what_cannot_be_captured_is_refused_with_the_reason() -> None:
    class Outside(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.from_numpy(x.numpy() + 1)

    with pytest.raises(CompressorError, match=r"torch\.export cannot capture this model"):
        network_of(Outside(), torch.randn(2, 5))


def test_a_trace_does_not_share_anything_with_the_model() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    traced, _ = network_of(model, torch.randn(3, 5))
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    for parameter in traced.module.parameters():
        parameter.data.zero_()
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


@pytest.mark.parametrize("name", CASES)
def test_every_group_reaches_a_parameter_and_is_named_once(name: str) -> None:
    of = analysed(name)
    network = of.network
    parameters = dict(of.model.named_parameters())
    assert len({g.name for g in network.groups}) == len(network.groups) > 0
    for group in network.groups:
        axis = network.axes[group.name]
        assert group.size == axis.size > 1
        assert any(member.tensor in parameters for member in group.members)
        reached = {
            (name, i)
            for name, shape in network.tensors.items()
            for i, dim in enumerate(shape)
            if name not in network.aliases and axis in leaves(dim)
        }
        assert reached == {(member.tensor, member.dim) for member in group.members}


def test_deep_networks_have_a_group_per_inner_width_and_per_stream() -> None:
    network = analysed_case(Case(lambda: CifarResNet(20), (3, 32, 32))).network
    sizes = sorted(group.size for group in network.groups)
    inner = [16] * 3 + [32] * 3 + [64] * 3
    assert sizes == sorted([*inner, 16, 8, 8, 16, 16])


def test_cost_of_an_untouched_network_by_hand() -> None:
    network = analysed("residual").network
    convolutions = 64 * 9 * (3 * 8 + 8 * 6 + 6 * 8)
    assert network.cost.of("macs") == convolutions + 8 * 4
    assert network.cost.of("channels") == 8 + 6 + 8 + 4
