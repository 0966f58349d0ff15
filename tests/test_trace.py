"""Capture: batches, branches, regions that set a mode, training-only parts, an untouched model."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from cases import Case
from torch import Tensor, nn
from torch_version import follows_branches
from twin import (
    Analysed,
    analysed_case,
    assert_same,
    assert_smaller,
    live,
    masked_twin,
    outputs,
    random_keep,
    sliced,
)
from zoo_member import net

from compressor.errors import CompressorError
from compressor.graph.analysis import analyse
from compressor.graph.counting import count_params
from compressor.graph.trace import trace
from compressor.loading.examples import try_inputs
from compressor.records import ExampleInputs, Trace
from compressor.slicing import as_module, slice_network

Forward = Callable[[Any, Tensor], Any]


def two_layers(forward: Forward) -> nn.Module:
    """5 -> 8 -> 3, joined as the test likes; the first group is `a.weight:0`."""
    return net(forward, a=nn.Linear(5, 8), b=nn.Linear(8, 3))


def case_of(forward: Forward) -> Case:
    return Case(lambda: two_layers(forward), (5,))


def traced(model: nn.Module, *inputs: Tensor) -> Trace:
    return trace(model, ExampleInputs(inputs or (torch.randn(2, 5),)))


def higher_order(found: Trace) -> list[str]:
    """Names of the operators that still hold a graph of their own."""
    nodes = found.program.graph.nodes
    return [
        str(node.target)
        for node in nodes
        if isinstance(node.target, torch._ops.HigherOrderOperator)
    ]


def assert_sliced_like_its_twin(of: Analysed) -> None:
    keep = random_keep(of.network, seed=0)
    found = sliced(of, keep)
    assert_smaller(found, of, keep)
    assert found.plan.form == "class"
    twin = masked_twin(of, keep)
    assert_same(twin, found.module, of.case)
    assert_same(twin, as_module(found.program), of.case)


# -- batches -------------------------------------------------------------------------------------


def plain(m: Any, x: Tensor) -> Tensor:
    return m.b(m.a(x).relu())


def mixes_samples(m: Any, x: Tensor) -> Tensor:
    return m.b(m.a(x).relu().reshape(2, 8))


def test_the_batch_is_free_where_the_network_lets_it() -> None:
    found = traced(two_layers(plain), torch.randn(1, 5))
    assert found.batch_symbol
    assert found.batch == 2
    assert found.notes == ()
    for batch in (1, 2, 7):
        assert outputs(as_module(found.program), torch.randn(batch, 5))[0].shape == (batch, 3)


def test_a_batch_that_is_not_free_is_noted_and_the_result_still_agrees() -> None:
    model = live(two_layers(mixes_samples))
    inputs = torch.randn(2, 5, dtype=torch.float64)
    found = traced(model, inputs)
    assert found.batch_symbol is None
    (note,) = found.notes
    assert note.startswith("the batch is static: ")
    network = analyse(found)
    smaller = slice_network(found, network, {"a.weight:0": (0, 3, 4)})
    with torch.no_grad():
        model.b.weight[:, [1, 2, 5, 6, 7]] = 0
    torch.testing.assert_close(
        outputs(model, inputs)[0],
        outputs(as_module(smaller.program), inputs)[0],
        rtol=1e-12,
        atol=1e-12,
    )


def test_inputs_without_a_common_batch_are_taken_as_they_are() -> None:
    def outer(m: Any, x: Tensor, y: Tensor) -> Tensor:
        return m.b(m.a(x)) @ m.b(m.a(y)).T

    found = traced(two_layers(outer), torch.randn(1, 5), torch.randn(4, 5))
    assert found.batch_symbol is None
    assert found.batch == 1
    assert [tuple(x.shape) for x in found.examples.args] == [(1, 5), (4, 5)]


# -- branches on values --------------------------------------------------------------------------


def by_sign(m: Any, x: Tensor) -> Tensor:
    hidden = m.a(x)
    return m.b(hidden.relu() if x.sum().item() > 0 else hidden.tanh())


@follows_branches
def test_of_a_branch_the_taken_side_is_delivered_and_the_other_refused() -> None:
    model = live(two_layers(by_sign))
    positive = torch.rand(2, 5, dtype=torch.float64) + 0.1
    found = traced(model, positive)
    assert found.branched
    assert any("branches on values" in note for note in found.notes)
    network = analyse(found)
    smaller = slice_network(found, network, {"a.weight:0": (1, 2, 6)})
    assert smaller.plan.form == "program"
    assert "branches on values" in smaller.plan.obstacle
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.b.weight[:, [0, 3, 4, 5, 7]] = 0
    torch.testing.assert_close(outputs(twin, positive), outputs(smaller.module, positive))
    with pytest.raises(Exception, match=r"(?i)assert"):
        smaller.module(-positive)


# -- regions that set a mode ---------------------------------------------------------------------


def without_gradients(m: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        hidden = m.a(x).relu()
    return m.b(hidden)


def with_gradients(m: Any, x: Tensor) -> Tensor:
    with torch.enable_grad():
        return m.b(m.a(x).relu())


def without_autocast(m: Any, x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        hidden = m.a(x).relu()
    return m.b(hidden)


def nested(m: Any, x: Tensor) -> Tensor:
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        return m.b(m.a(x).relu())


def several_results(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        hidden = m.a(x)
        gate = hidden.sigmoid()
        with torch.enable_grad():
            scores = m.b(hidden * gate)
    return scores, m.b(gate)


def with_a_constant(m: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        hidden = m.a(x) * torch.tensor(2.0, dtype=torch.float64)
    return m.b(hidden)


def decorated(m: Any, x: Tensor) -> Tensor:
    @torch.no_grad()
    def hidden(x: Tensor) -> Tensor:
        return torch.tanh(m.a(x))

    return m.b(hidden(x))


REGIONS = [
    without_gradients,
    with_gradients,
    without_autocast,
    nested,
    several_results,
    with_a_constant,
    decorated,
]


@pytest.mark.parametrize("forward", REGIONS)
def test_a_region_that_changes_nothing_is_inlined_and_pruned(forward: Forward) -> None:
    of = analysed_case(case_of(forward))
    assert higher_order(of.trace) == []
    assert [group.name for group in of.network.groups] == ["a.weight:0"]
    assert of.trace.batch_symbol
    assert_sliced_like_its_twin(of)


def in_half_precision(m: Any, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=True):
        hidden = m.a(x).relu()
    return m.b(hidden.float())


def test_autocast_that_is_on_is_left_alone_and_protects() -> None:
    model = two_layers(in_half_precision).eval()
    inputs = torch.randn(2, 5)
    found = traced(model, inputs)
    assert len(higher_order(found)) == 1
    network = analyse(found)
    assert not network.groups
    reasons = {t: p.reason for p in network.protections for t in p.tensors}
    assert "wrap_with_autocast has no rule" in reasons["a.weight:0"]
    assert torch.equal(outputs(model, inputs)[0], outputs(as_module(found.program), inputs)[0])


# -- what only training uses ---------------------------------------------------------------------


def of_two_branches(m: Any, x: Tensor) -> Tensor:
    h = m.a(x)
    found: Tensor = torch.cond(h.sum() > 0, lambda h: m.b(h), lambda h: m.b(-h), (h,))
    return found


def test_layers_within_a_condition_are_captured_and_protected() -> None:
    module, inputs = two_layers(of_two_branches), ExampleInputs((torch.randn(2, 5),))
    assert try_inputs(module, inputs) is None
    reasons = {p.reason for p in analyse(trace(module, inputs)).protections}
    assert "the operator cond has no rule" in reasons


class Auxiliary(nn.Module):
    """A second head on an inner layer, as GoogLeNet has: only training runs it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm, self.body = nn.BatchNorm2d(8), nn.Conv2d(8, 6, 3, padding=1)
        self.side = nn.Sequential(nn.Conv2d(8, 7, 1), nn.ReLU(), nn.Flatten(), nn.Linear(112, 4))
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(6, 4)
        self.forgotten = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Any:
        x = self.norm(self.stem(x)).relu()
        scores = self.head(self.drop(self.body(x).mean((2, 3))))
        return {"out": scores, "side": self.side(x)} if self.training else {"out": scores}


@pytest.fixture(scope="module")
def auxiliary() -> Analysed:
    return analysed_case(Case(Auxiliary, (3, 4, 4)))


def test_auxiliary_heads_are_sliced_with_the_rest(auxiliary: Analysed) -> None:
    assert auxiliary.trace.training is not None
    groups = {group.name: group for group in auxiliary.network.groups}
    stream = {(m.tensor, m.dim) for m in groups["stem.weight:0"].members}
    assert {("side.0.weight", 1), ("body.weight", 1), ("norm.running_mean", 0)} <= stream
    assert "side.0.weight:0" in groups
    keep = random_keep(auxiliary.network, seed=0)
    found = sliced(auxiliary, keep)
    assert found.plan.form == "class"
    kept = {name: len(indices) for name, indices in keep.items()}
    assert found.module.side[0].weight.shape[:2] == (kept["side.0.weight:0"], kept["stem.weight:0"])
    assert found.module.side[3].in_features == 16 * kept["side.0.weight:0"]
    assert_same(masked_twin(auxiliary, keep), found.module, auxiliary.case)


def test_a_class_with_auxiliary_heads_trains(auxiliary: Analysed) -> None:
    """The heads learn, and compute what their masked twin computes."""
    keep = random_keep(auxiliary.network, seed=1)
    module = sliced(auxiliary, keep).module.train()
    twin = masked_twin(auxiliary, keep).train()
    inputs = auxiliary.case.inputs(4)
    side = module(*inputs)["side"]
    torch.testing.assert_close(side, twin(*inputs)["side"], rtol=1e-10, atol=1e-10)
    side.square().sum().backward()
    assert module.side[0].weight.grad.abs().sum() > 0
    assert module.stem.weight.grad.abs().sum() > 0


def test_parameters_that_nothing_uses_are_protected_and_noted(auxiliary: Analysed) -> None:
    (note,) = auxiliary.trace.notes
    assert note.startswith("2 parameters that evaluation never uses, nor does training")
    reasons = {t: p.reason for p in auxiliary.network.protections for t in p.tensors}
    for place in ("forgotten.weight:0", "forgotten.weight:1", "forgotten.bias:0"):
        assert reasons[place] == "no operator uses it"


def test_training_that_cannot_be_captured_is_noted() -> None:
    class Untraceable(Auxiliary):
        def forward(self, x: Tensor) -> Any:
            if self.training:
                raise ValueError("not without targets")
            return super().forward(x)

    found = traced(Untraceable(), torch.randn(2, 3, 4, 4))
    assert found.training is None
    (note,) = found.notes
    assert "were left alone and may no longer fit" in note
    assert "ValueError: not without targets" in note
    network = analyse(found)
    assert [group.name for group in network.groups] == ["stem.weight:0", "body.weight:0"]
    kept = {t for p in network.protections for t in p.tensors}
    assert {"side.0.weight:0", "side.0.weight:1"} <= kept


# -- the model that is passed in -----------------------------------------------------------------


def fingerprint(model: nn.Module) -> tuple[str, Mapping[str, Any]]:
    digest = hashlib.sha256()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        digest.update(f"{name} {tensor.requires_grad}".encode() + tensor.detach().numpy().tobytes())
    return digest.hexdigest(), {path: m.training for path, m in model.named_modules()}


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training: bool) -> None:
    model = Auxiliary().train(training)
    model.norm.eval()
    model.stem.bias.requires_grad_(False)
    before = fingerprint(model)
    found = traced(model, torch.randn(2, 3, 4, 4))
    assert fingerprint(model) == before
    assert not any(m.training for m in found.module.modules())
    assert count_params(found.module) == count_params(model)
    shared = {t.data_ptr() for t in model.state_dict().values()}
    for copied in (found.module.state_dict(), found.program.state_dict):
        assert not shared & {t.data_ptr() for t in copied.values()}


def test_a_model_that_cannot_be_copied_is_refused_with_the_reason() -> None:
    def not_to_be_copied(memo: Any) -> None:
        raise TypeError("cannot pickle '_thread.lock' object")

    model = two_layers(plain)
    model.__deepcopy__ = not_to_be_copied  # type: ignore[assignment]
    with pytest.raises(CompressorError, match="cannot be copied") as refused:
        traced(model)
    assert "_thread.lock" in refused.value.where


@pytest.mark.parametrize("name", ["class", "lambda", "None"])
def test_a_layer_named_by_a_word_of_pythons_is_refused_by_name(name: str) -> None:
    inner = nn.Sequential()
    inner.add_module(name, nn.Linear(4, 4))
    with pytest.raises(CompressorError, match=rf"'{name}'[\s\S]*where: 0\.{name}[\s\S]*{name}_"):
        trace(nn.Sequential(inner, nn.Linear(4, 2)), ExampleInputs((torch.randn(1, 4),)))
