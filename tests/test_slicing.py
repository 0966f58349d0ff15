"""Slicing: identity, composition, an untouched original, plans that replay, and counted costs."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace

import pytest
import torch
from cases import CASES, Case
from networks import PaddedShortcut, Residual
from torch import Tensor, nn
from torch.fx import Interpreter, Node
from torch_version import IS_2_11
from twin import (
    EXACT,
    Analysed,
    Keep,
    analysed,
    analysed_case,
    assert_same,
    dense_program,
    live,
    masked_twin,
    outputs,
    random_keep,
    sliced,
)

from compressor.errors import CompressorError
from compressor.graph.analysis import analyse
from compressor.graph.counting import count_macs, count_params
from compressor.graph.trace import trace
from compressor.records import ExampleInputs, Plan
from compressor.slicing import (
    Sliced,
    apply_plan,
    as_module,
    carry_weights,
    compare,
    kept_indices,
    slice_network,
    variants,
)
from compressor.slicing.program import slice_program
from compressor.slicing.propagation import _Propagation

FOLLOWING = [name for name, case in CASES.items() if case.follows]


def assert_equal_outputs(expected: nn.Module, found: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    for a, b in zip(outputs(expected, *inputs), outputs(found, *inputs), strict=True):
        assert torch.equal(a, b)


def assert_equal_states(expected: nn.Module, found: nn.Module) -> None:
    left, right = expected.state_dict(), found.state_dict()
    assert set(left) == set(right)
    assert all(torch.equal(left[name], right[name]) for name in left)


def fingerprint(model: nn.Module) -> str:
    """Of everything that a caller could see change."""
    seen = hashlib.sha256(repr(model).encode())
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        seen.update(f"{name} {tensor.requires_grad} {tensor.grad} {tensor.shape}".encode())
        seen.update(tensor.detach().numpy().tobytes())
    for path, layer in model.named_modules():
        numbers = {k: v for k, v in vars(layer).items() if isinstance(v, int | tuple | str)}
        seen.update(f"{path} {sorted(numbers.items())}".encode())
    return seen.hexdigest()


@pytest.mark.parametrize("name", CASES)
def test_dropping_nothing_is_the_identity_bit_for_bit(name: str) -> None:
    of = analysed(name)
    found = sliced(of, {group.name: tuple(range(group.size)) for group in of.network.groups})
    assert found.plan.form == "class"
    assert not found.plan.tensors
    assert not found.plan.attributes
    assert found.difference < 1e-14  # a fused attention layer rounds in another order
    inputs = of.case.inputs(3, seed=4)
    assert_equal_states(of.model, found.module)
    assert_equal_outputs(of.model, found.module, inputs)
    assert_equal_outputs(dense_program(of), as_module(found.program), inputs)


class FromTheEnd(nn.Module):
    """A slice whose start does not move when what lies behind it shrinks."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.head = nn.Linear(8, 8), nn.Linear(3, 4)
        self.rest = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.wide(x)
        return self.head(y[:, -8:-5]) + self.rest(y[:, 3:])


def test_places_counted_from_the_end_follow_what_lies_behind_them() -> None:
    traced = trace(FromTheEnd().eval(), ExampleInputs((torch.randn(2, 8),)))
    network = analyse(traced)
    for group in network.groups:
        keep = {group.name: tuple(range(1, group.size))}
        program = slice_program(traced, network, network.masks(keep))
        twin = masked_twin(Analysed(Case(FromTheEnd), traced.module, traced, network), keep)
        x = torch.randn(3, 8)
        with torch.no_grad():
            torch.testing.assert_close(as_module(program)(x), twin(x))
    assert {group.size for group in network.groups} == {3, 5}


def test_groups_that_are_not_listed_keep_all() -> None:
    of = analysed("residual")
    found = sliced(of, {})
    assert not found.plan.groups
    assert_equal_states(of.model, found.module)


def in_two_steps(name: str) -> tuple[Sliced, Sliced]:
    """Random channels dropped from a network and more from the result, and all of them at once."""
    of = analysed(name)
    both: Keep = random_keep(of.network, seed=6)
    first = {
        group.name: tuple(sorted({*both[group.name], *range(0, group.size, 2), 1}))
        for group in of.network.groups
        if group.name in both
    }
    step = sliced(of, first)
    again = trace(step.module, ExampleInputs(of.case.inputs(2)))
    network = analyse(again)
    left = {group.name for group in network.groups}
    assert left >= set(both)
    second = {g: tuple(first[g].index(i) for i in both[g]) for g in both}
    return slice_network(again, network, second), sliced(of, both)


@pytest.mark.parametrize("name", ["residual", "dense", "grouped", "padded_shortcut", "gated"])
def test_dropping_a_then_b_is_dropping_both(name: str) -> None:
    stepwise, at_once = in_two_steps(name)
    assert_equal_states(at_once.module, stepwise.module)
    inputs = CASES[name].inputs(3, seed=4)
    assert_equal_outputs(as_module(at_once.program), as_module(stepwise.program), inputs)


@pytest.mark.parametrize("name", ["residual", "encoder_layer", "tied_layers", "grouped_query"])
@pytest.mark.parametrize("training", [True, False])
def test_the_original_is_left_alone(name: str, training: bool) -> None:
    case = CASES[name]
    model = live(case.build()).train(training)
    next(model.parameters()).requires_grad_(False)
    before = fingerprint(model)
    traced = trace(model, ExampleInputs(case.inputs(2)))
    assert fingerprint(model) == before
    network, program = analyse(traced), fingerprint(as_module(traced.program))
    found = slice_network(traced, network, random_keep(network, seed=0))
    for form in (found.module, as_module(found.program)):
        form.train()
        form(*case.inputs(2))
        for parameter in form.parameters():
            parameter.data.zero_()
    assert fingerprint(model) == before
    assert fingerprint(as_module(traced.program)) == program
    assert model.training == training


@pytest.mark.parametrize("name", FOLLOWING)
def test_forms_agree_and_can_be_trained(name: str) -> None:
    of = analysed(name)
    found = sliced(of, random_keep(of.network, seed=1))
    assert compare(found, of.trace) <= 1e-10
    for form in (found.module, as_module(found.program)):
        assert not form.training
        assert all(p.requires_grad and p.grad is None for p in form.parameters())


@pytest.mark.parametrize("name", CASES)
def test_the_program_runs_with_other_batches(name: str) -> None:
    of = analysed(name)
    program = as_module(sliced(of, random_keep(of.network, seed=1)).program)
    together = outputs(program, *of.case.inputs(5))
    for i in range(5):
        alone = outputs(program, *(x[i : i + 1] for x in of.case.inputs(5)))
        for whole, one in zip(together, alone, strict=True):
            torch.testing.assert_close(whole[i : i + 1], one, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_predicted_costs_are_counted_on_the_sliced_network(name: str) -> None:
    of = analysed(name)
    keep = random_keep(of.network, seed=2, roles=EXACT | {"stream", "head_width"})
    found, cost = sliced(of, keep), of.network.cost
    sizes = of.network.sizes({group: len(kept) for group, kept in keep.items()})
    one = of.case.inputs(1)
    assert cost.macs() == count_macs(of.model, one, {})
    assert cost.params() == count_params(of.model)
    for form in (found.module, as_module(found.program)):
        assert cost.macs(sizes) == count_macs(form, one, {}) < cost.macs()
        assert cost.params(sizes) == count_params(form)
        assert cost.params(sizes) == sum(p.numel() for p in form.parameters())


# -- tied tensors --------------------------------------------------------------------------------


def test_tied_tensors_are_sliced_once_and_tied_again() -> None:
    of = analysed("tied_layers")
    found = sliced(of, random_keep(of.network, seed=0))
    assert found.plan.aliases == {"right.weight": "left.weight"}
    assert found.module.left.weight is found.module.right.weight
    state = found.program.state_dict
    assert state["left.weight"] is state["right.weight"]


# -- plans ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FOLLOWING)
def test_a_plan_replays_from_its_text_on_a_fresh_network(name: str) -> None:
    of = analysed(name)
    found = sliced(of, random_keep(of.network, seed=3))
    text = found.plan.to_json()
    plan = Plan.from_json(text)
    assert plan.to_json() == text
    rebuilt = apply_plan(plan, of.case.build().double().eval())
    rebuilt.load_state_dict(found.module.state_dict())
    assert_equal_outputs(found.module, rebuilt, of.case.inputs(3, seed=5))


def test_equal_choices_give_equal_texts() -> None:
    of = analysed("dense")
    keep = random_keep(of.network, seed=3)
    again = dict(reversed([(name, tuple(reversed(kept))) for name, kept in keep.items()]))
    assert sliced(of, keep).plan.to_json() == sliced(of, again).plan.to_json()


def test_a_plan_for_another_network_is_refused() -> None:
    of = analysed("padded_shortcut")
    plan = sliced(of, random_keep(of.network, seed=3)).plan
    for other in (Residual(), PaddedShortcut(small=6, large=14)):
        before = fingerprint(other)
        with pytest.raises(CompressorError, match="made for another network"):
            apply_plan(plan, other)
        assert fingerprint(other) == before


def test_a_program_has_no_class_to_rebuild() -> None:
    of = analysed("gated")
    plan = sliced(of, random_keep(of.network, seed=0)).plan
    assert plan.form == "program"
    with pytest.raises(CompressorError, match="the class could not follow") as refused:
        apply_plan(plan, of.case.build())
    assert "load_program" in refused.value.next_step
    assert refused.value.where == plan.obstacle


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 99}', '{"schema": 1}'])
def test_another_text_is_no_plan(text: str) -> None:
    with pytest.raises((ValueError, KeyError)):
        Plan.from_json(text)


def test_a_class_that_computes_something_else_is_not_returned() -> None:
    """Its attribute for the width is read before slicing and never again."""

    class Stubborn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 3)
            self.table = {"width": 8}

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x).view(-1, self.table["width"]).relu())

    model = live(Stubborn())
    inputs = ExampleInputs((torch.randn(2, 5, dtype=torch.float64),))
    traced = trace(model, inputs)
    network = analyse(traced)
    found = slice_network(traced, network, {"a.weight:0": (0, 2, 5)})
    assert found.plan.form == "program"
    assert "could not follow" in found.plan.obstacle
    by_hand = copy.deepcopy(model)
    by_hand.table["width"] = 3
    kept = torch.tensor([0, 2, 5])
    by_hand.a.weight.data, by_hand.a.bias.data = model.a.weight[kept], model.a.bias[kept]
    by_hand.b.weight.data = model.b.weight[:, kept]
    assert_equal_outputs(by_hand, found.module, inputs.args)


def test_forms_that_disagree_are_refused() -> None:
    of = analysed("residual")
    found = sliced(of, random_keep(of.network, seed=0))
    broken = copy.deepcopy(found.module)
    with torch.no_grad():
        broken.head.weight *= 1.01
    with pytest.raises(CompressorError, match="compute different outputs"):
        compare(replace(found, module=broken), of.trace)


def test_forms_are_compared_on_two_inputs_of_two_batch_sizes() -> None:
    of = analysed("residual")
    first, other = (v.args[0] for v in variants(of.trace))
    assert other.shape[0] == first.shape[0] + 1
    assert not torch.equal(first, other[:-1])


def test_recovered_weights_reach_the_program_by_name() -> None:
    of = analysed("residual")
    found = sliced(of, random_keep(of.network, seed=0))
    recovered = copy.deepcopy(found.module)
    with torch.no_grad():
        for tensor in recovered.state_dict().values():
            tensor += 0.1 if tensor.is_floating_point() else 0
    carry_weights(recovered, found.program)
    assert_same(recovered, as_module(found.program), of.case)


# -- training and evaluation ---------------------------------------------------------------------


def test_the_program_trains_as_the_class_does() -> None:
    """Batch statistics and the same dropped units under the same seed; `eval` comes back."""
    of = analysed("mlp")
    found = sliced(of, random_keep(of.network, seed=0))
    module, program = found.module, as_module(found.program)
    inputs = of.case.inputs(6)
    evaluated = outputs(program, *inputs)[0]
    statistics = program.get_buffer("1.running_mean").clone()
    for form in (module, program):
        form.train()
    for seed in (0, 1):
        drawn = []
        for form in (module, program):
            torch.manual_seed(seed)
            drawn.append(outputs(form, *inputs)[0])
        torch.testing.assert_close(*drawn, rtol=1e-10, atol=1e-10)
        assert not torch.equal(drawn[1], evaluated)
    assert not torch.equal(statistics, program.get_buffer("1.running_mean"))
    for name in ("1.running_mean", "5.running_var"):
        torch.testing.assert_close(module.get_buffer(name), program.get_buffer(name))
    for form in (module, program):
        form.eval()
    assert_same(module, program, of.case)
    assert torch.equal(outputs(program, *inputs)[0], outputs(program, *inputs)[0])


def test_every_operator_that_has_a_training_mode_is_switched() -> None:
    layers = (
        nn.InstanceNorm1d(4, track_running_stats=True),
        nn.RReLU(),
        nn.AlphaDropout(0.5, True),
    )
    x = torch.randn(2, 4, 8)
    for layer in layers:
        layer.eval()
        program = as_module(trace(layer, ExampleInputs((x,))).program)
        before = program(x.clone())
        torch.testing.assert_close(before, layer(x.clone()))
        assert not torch.equal(program.train()(x.clone()), before), layer
        if not isinstance(layer, nn.InstanceNorm1d):  # its statistics have moved on
            assert torch.equal(program.eval()(x.clone()), before)


def test_eval_gives_the_same_bits_as_before_train() -> None:
    of = analysed("encoder_layer")
    program = dense_program(of)
    inputs = of.case.inputs(2)
    before = outputs(program, *inputs)[0]
    assert program.train() is program
    assert not torch.equal(before, outputs(program, *inputs)[0])
    assert torch.equal(before, outputs(program.eval(), *inputs)[0])


# -- sizes that the code reads from its parts ----------------------------------------------------


class Stateful(nn.Module):
    """Knows how wide its state is, and never uses that itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.mix = nn.Linear(width, width)

    def forward(self, state: Tensor, x: Tensor) -> Tensor:
        return self.mix(state).tanh() * state + x.mean(-1, keepdim=True)


class Owner(nn.Module):
    """Cuts a tensor into a state and the rest at the width of one of its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.cell, self.head = nn.Linear(5, 11), Stateful(7), nn.Linear(7, 3)
        self.rest = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.stem(x)
        state, rest = hidden.split([self.cell.width, hidden.shape[-1] - self.cell.width], -1)
        return self.head(self.cell(state, self.rest(rest)))


def test_a_size_that_the_code_reads_from_a_part_follows() -> None:
    of = analysed_case(Case(Owner, (5,)))
    keep = random_keep(of.network, seed=5)
    found = sliced(of, keep)
    assert found.plan.form == "class", found.plan.obstacle
    assert not found.plan.stand_ins
    assert 1 <= found.plan.attributes["cell"]["width"] < 7
    assert_same(masked_twin(of, keep), found.module, of.case)


class Squeezed(nn.Module):
    """Drops all dimensions of size one, without naming them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).unsqueeze(1).squeeze())


def test_dimensions_that_the_code_does_not_name_are_no_sizes_of_it() -> None:
    of = analysed_case(Case(Squeezed, (6,)))
    keep = random_keep(of.network, seed=5)
    found = sliced(of, keep)
    assert found.plan.form == "class", found.plan.obstacle
    assert_same(masked_twin(of, keep), found.module, of.case)


# -- what nodes yield --------------------------------------------------------------------------


class Shapes(nn.Module):
    """Pointwise operators and norms, in one order of memory and in another."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1)
        self.norm, self.activation = nn.BatchNorm2d(8), nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.norm(self.first(x)))
        turned = self.second(torch.sigmoid(x)).permute(0, 2, 3, 1).exp() > 1
        return turned.float().clone(memory_format=torch.contiguous_format) * 2


def test_what_is_known_of_a_node_is_what_running_it_yields(monkeypatch: pytest.MonkeyPatch) -> None:
    known, seen = _Propagation._known, []

    def checked(self: _Propagation, node: Node) -> Tensor | None:
        found = known(self, node)
        if found is not None:
            run = Interpreter.run_node(self, node)
            for it in ("shape", "dtype", "device"):
                assert getattr(found, it) == getattr(run, it), node
            assert found.stride() == run.stride(), node
            seen.append(str(node.target).split(".")[1])
        return found

    monkeypatch.setattr(_Propagation, "_known", checked)
    found = trace(Shapes().eval(), ExampleInputs((torch.randn(2, 3, 6, 6),)))
    network = analyse(found)
    slice_network(found, network, random_keep(network, seed=0))
    in_place = set() if IS_2_11 else {"hardtanh_"}
    assert {"batch_norm", "sigmoid"} | in_place <= set(seen)
    assert "exp" not in seen


def test_a_norm_that_does_not_fit_is_said() -> None:
    found = trace(Shapes().eval(), ExampleInputs((torch.randn(2, 3, 6, 6),)))
    network = analyse(found)
    masks = network.masks(random_keep(network, seed=0))
    wrong = {n: kept for n, kept in kept_indices(network, masks).items() if "norm" not in n}
    with pytest.raises(CompressorError, match="does not fit together"):
        slice_program(found, network, masks, wrong)


class Chosen(nn.Module):
    """Goes on with as many rows as the data choose."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.up(x)[x[:, 0] > 0].sigmoid())


def test_rows_that_data_choose_are_run() -> None:
    found = trace(Chosen().eval(), ExampleInputs((torch.randn(8, 6),)))
    network = analyse(found)
    assert slice_network(found, network, random_keep(network, seed=0)).difference < 1e-6
