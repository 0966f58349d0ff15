"""Rules that users register for their own operators."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compressor
from compressor import Axis, Call, Equations, Product, Sum, register_rule
from compressor.errors import CompressorError, UsageError
from compressor.graph import rules
from compressor.graph.analysis import analyse
from compressor.graph.network import Network
from compressor.graph.rules import BUILT_IN, RULES
from compressor.graph.trace import trace
from compressor.options import InspectOptions
from compressor.records import ExampleInputs
from compressor.studies.inspect import describe, inspect
from compressor.watch import Silent

NAME = "compressor_own.soft_sign.default"


@torch.library.custom_op("compressor_own::soft_sign", mutates_args=())
def soft_sign(x: Tensor) -> Tensor:
    return x / (1 + x.abs())


@soft_sign.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(soft_sign(self.a(x)))


def element_by_element(call: Call) -> Equations:
    """out = f(x)."""
    return Equations((call["x"],))


def another(call: Call) -> Equations:
    """Says the same."""
    return Equations((call.x,))


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What a test registers is gone after it."""
    before = dict(rules._registered)
    yield
    rules._registered.clear()
    rules._registered.update(before)


@torch.library.custom_op("compressor_own::mixed", mutates_args=())
def mixed(x: Tensor, weight: Tensor) -> Tensor:
    return x @ weight.T


@mixed.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def mixed_rule(call: Call) -> Equations:
    """x[..., i] weight[o, i] -> out[..., o]."""
    (*lead, given), (made, summed) = call["x"], call["weight"]
    return Equations(
        ((*lead, made),),
        [(given, summed)],
        contracted=[("weight", 1)],
        macs=[(*lead, given, made)],
        width=made,
    )


class Mixed(nn.Module):
    """A layer of the user's own between two of torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 24), nn.Linear(32, 4)
        self.weight = nn.Parameter(torch.randn(32, 24))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(mixed(self.up(x).relu(), self.weight).relu())


def network() -> Network:
    return analyse(trace(Own(), ExampleInputs((torch.randn(2, 5),))))


@pytest.mark.parametrize(
    "name",
    [
        "compressor_own::soft_sign",
        "compressor_own::soft_sign.default",
        "compressor_own.soft_sign",
        "compressor_own.soft_sign.default",
    ],
)
def test_a_registered_rule_is_asked_under_any_spelling(name: str) -> None:
    assert not network().groups
    register_rule(name, element_by_element)
    (group,) = network().groups
    assert group.size == 8


def test_it_is_a_decorator_too_and_returns_the_function() -> None:
    assert register_rule("compressor_own::soft_sign")(element_by_element) is element_by_element
    assert register_rule("compressor_own::other", another) is another
    assert {NAME, "compressor_own.other.default"} <= set(RULES)
    assert not {NAME, "compressor_own.other.default"} & set(BUILT_IN)


@pytest.mark.parametrize("name", ["compressor_own::soft_sign", "aten::relu"])
def test_a_second_rule_is_refused_and_can_replace_the_first(name: str) -> None:
    if name not in ("aten::relu",):
        register_rule(name, element_by_element)
    with pytest.raises(UsageError, match="has a rule already") as refused:
        register_rule(name, another)
    assert "replace=True" in refused.value.next_step
    register_rule(name, another, replace=True)
    key = "relu.default" if name == "aten::relu" else NAME
    assert RULES[key].__name__ == "another"


def test_the_same_code_again_is_no_second_rule() -> None:
    """A file with a network and its rules may be imported twice in a process."""
    code = "def rule(call): return None\nregister('compressor_own::soft_sign', rule)"
    for _ in range(2):
        exec(compile(code, "nets.py", "exec"), {"register": register_rule, "__name__": "nets"})
    with pytest.raises(UsageError, match="has a rule already"):
        exec(compile("\n" + code, "nets.py", "exec"), {"register": register_rule, "__name__": "n"})


@pytest.mark.parametrize("name", ["soft_sign", "", "a::b::c", "my lib::op", "a.b.c.d"])
def test_a_name_without_a_namespace_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no operator's name") as refused:
        register_rule(name, element_by_element)
    assert "mylib::my_op" in refused.value.next_step


def test_a_rule_is_a_function() -> None:
    with pytest.raises(UsageError, match="a rule is a function of a Call, not Equations"):
        register_rule("compressor_own::soft_sign", Equations())  # type: ignore[call-overload]
    assert NAME not in RULES


def test_a_rule_that_fails_is_told_as_such() -> None:
    register_rule("compressor_own::soft_sign", lambda call: Equations((call["input"],)))
    with pytest.raises(CompressorError, match="registered rule for compressor_own") as failed:
        network()
    assert "KeyError: 'input'" in failed.value.what
    assert failed.value.where.endswith("for the arguments x")


def test_a_rule_with_wrong_sizes_is_told_as_such() -> None:
    register_rule("compressor_own::soft_sign", lambda call: Equations((call.x[:1],)))
    with pytest.raises(CompressorError, match=f"the rule for {NAME} says sizes"):
        network()


def test_what_rules_are_written_with_is_public_and_needs_no_torch() -> None:
    for found in (Axis, Product, Sum, Call, Equations, register_rule):
        assert found.__name__ in compressor.__all__
    code = (
        "import sys; from compressor import Axis, Call, Equations, Product, Sum, register_rule;"
        "assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_multiply_adds_of_a_rule_are_those_of_report_budget_limit_and_inspection() -> None:
    register_rule("compressor_own::mixed", mixed_rule)
    whole, x = 6 * 24 + 24 * 32 + 32 * 4, torch.randn(1, 6)
    how: dict[str, Any] = {"format": (), "round_to": 1}
    for asked in ({"ratio": 0.4}, {"max_macs": "624"}):
        report = compressor.compress(Mixed(), x, **asked, **how).report
        after = report["after"]["macs"]
        assert (report["before"]["macs"], report["budget"]["predicted"]["macs"]) == (whole, after)
        assert 0.5 * whole < after <= 0.6 * whole
        again = report["counted_independently"]
        op = "compressor_own.mixed.default"
        assert again["before"] == {"macs": 272, "left_out": {op: 768}, "reason": ""}
        assert again["after"]["macs"] + again["after"]["left_out"][op] == after
        notes = [note for note in report["notes"] if "independent count" in note]
        assert len(notes) == 1 and f"leaves out {op}, of which it has no formula" in notes[0]
        row = {"name": "", "before": 768, "after": again["after"]["left_out"][op]}
        assert row in report["layers"]
    found = inspect(Mixed(), InspectOptions(input=("1x6",)), Silent())
    assert describe(found)["totals"]["macs"] == whole


def test_a_rule_that_takes_the_place_of_ours_counts_too() -> None:
    class Distances(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8))
            self.centres = nn.Parameter(torch.randn(5, 8))

        def forward(self, x: Tensor) -> Tensor:
            return torch.cdist(self.up(x), self.centres)

    def with_macs(call: Call) -> Equations:
        (rows, given), (others, width) = call["x1"], call["x2"]
        macs = [(rows, others, given)]
        return Equations(((rows, others),), [(given, width)], statistics=[width], macs=macs)

    register_rule("aten::cdist", with_macs, replace=True)
    report = compressor.compress(Distances(), torch.randn(1, 6), 0.5, format=()).report
    assert report["before"]["macs"] == 16 * (6 + 8) + 5 * 8
    assert report["after"]["macs"] == report["budget"]["predicted"]["macs"]
    assert report["counted_independently"]["before"]["left_out"] == {"cdist.default": 40}
    assert not any("wrong" in note for note in report["notes"])


def test_a_count_that_contradicts_the_equations_is_noted() -> None:
    def half(call: Call) -> Equations:
        whole = BUILT_IN["linear.default"](call)
        return replace(whole, macs=[dims[:-1] for dims in whole.macs])

    register_rule("aten::linear", half, replace=True)
    network = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))
    report = compressor.compress(network, torch.randn(1, 6), 0.5, format=()).report
    assert report["before"]["macs"] == 6 + 16
    assert sum("one of them is wrong" in note for note in report["notes"]) == 2
