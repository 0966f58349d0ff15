"""Rules that users register for their own operators."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

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
from compressor.records import ExampleInputs

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
