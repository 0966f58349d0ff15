"""Every rule against its operator: the sizes agree, and what the rule lets go can go."""

from __future__ import annotations

import runpy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from calls import CALLS, t
from operators import (
    Solved,
    overload,
    random_masks,
    run,
    silenced,
    sliced_call,
    solve,
    taken,
)
from torch import Tensor

import compressor.graph.rules
from compressor.errors import UsageError
from compressor.graph.rules import BUILT_IN, RULES, elementwise, facts, register
from compressor.graph.rules import call as call_module


def assert_sizes(call: Solved) -> None:
    said = [tuple(dim.size for dim in shape) for shape in call.equations.outputs]
    assert said == [tuple(result.shape) for result in call.results]


def assert_droppable(call: Solved, zero: tuple[Any, ...], seed: int) -> None:
    """The operator on what is left equals what is left of the operator's result."""
    keep = random_masks(call.free, seed)
    dense = run(call.name, silenced(call, keep, zero))
    small = sliced_call(call, keep)
    assert len(dense) == len(small) == len(call.equations.outputs)
    for whole, part, shape in zip(dense, small, call.equations.outputs, strict=True):
        expected = taken(whole, call.normal(shape), keep)
        assert part.shape == expected.shape
        torch.testing.assert_close(part, expected, rtol=1e-10, atol=1e-10, equal_nan=True)


@pytest.mark.parametrize(("name", "free", "arguments", "named", "zero"), CALLS)
def test_a_rule_agrees_with_its_operator(
    name: str, free: int, arguments: tuple[Any, ...], named: dict[str, Any], zero: tuple[Any, ...]
) -> None:
    call = solve(name, *arguments, **named)
    assert_sizes(call)
    assert len(call.free) == free
    for seed in range(3):
        assert_droppable(call, zero, seed)


def test_every_rule_is_called() -> None:
    """By the table above, or for the element-wise families by the one below."""
    called = {BUILT_IN[parameters.values[0]] for parameters in CALLS}
    assert set(BUILT_IN.values()) - called <= {elementwise.nothing}


# -- element by element --------------------------------------------------------------------------

BY_TYPE = {
    "Tensor": lambda: t(3, 4),
    "number": lambda: 0.5,
    "float": lambda: 0.25,
    "int": lambda: 1,
    "bool": lambda: False,
    "ScalarType": lambda: torch.float64,
    "Device": lambda: torch.device("cpu"),
    "str": lambda: "floor",
}
NEEDED = {
    "clamp.default": {"min": 0.5},
    "clamp_.default": {"min": 0.5},
    "clip.default": {"min": 0.5},
    "clip_.default": {"min": 0.5},
    **{name: {"min": t(3, 4)} for name in ("clamp.Tensor", "clamp_.Tensor", "clip.Tensor")},
    "clip_.Tensor": {"min": t(3, 4)},
    "fill.Tensor": {"value": t()},
    "fill_.Tensor": {"value": t()},
    "masked_fill.Tensor": {"value": t(), "mask": t(3, 4) > 0.5},
    "masked_fill_.Tensor": {"value": t(), "mask": t(3, 4) > 0.5},
    "masked_fill.Scalar": {"mask": t(3, 4) > 0.5},
    "masked_fill_.Scalar": {"mask": t(3, 4) > 0.5},
}
"""Arguments that the types in the schema do not tell."""
CHANCE = ("rand", "bernoulli", "normal_", "uniform_", "exponential_", "empty", "native_dropout")
ELEMENTWISE = [
    name
    for name, rule in RULES.items()
    if rule in (elementwise.elementwise, elementwise.like_first)
]


def simple_call(name: str) -> Solved:
    """The operator on what its schema wants: tensors of one shape, of the first type it takes."""
    wanted = [a for a in overload(name)._schema.arguments if not a.has_default_value()]
    given = {a.name: BY_TYPE[_type_name(a.type)]() for a in wanted} | NEEDED.get(name, {})
    for kind in (torch.float64, torch.int64, torch.bool, torch.complex128):
        try:
            return solve(name, **{k: _typed(v, kind) for k, v in given.items()})
        except (RuntimeError, NotImplementedError):
            continue
    raise AssertionError(f"{name} takes none of the types")


def _typed(value: Any, kind: torch.dtype) -> Any:
    """Tensors but masks of that type, and numbers that are whole where it is."""
    whole = kind is torch.int64
    if not isinstance(value, Tensor):
        return 2 if value == BY_TYPE["number"]() and whole else value
    return value if value.dtype == torch.bool else (4 * value if whole else value).to(kind)


def _type_name(kind: Any) -> str:
    return str(kind).replace("Optional[", "").rstrip("]")


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_an_elementwise_operator_keeps_its_dimensions(name: str) -> None:
    call = simple_call(name)
    assert_sizes(call)
    assert call.free or not call.shapes
    if not any(word in name for word in CHANCE):
        assert_droppable(call, (), seed=0)


# -- the table -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_operator_exists(name: str) -> None:
    of_others = name.removeprefix("torchvision.").removeprefix("transformers.")
    assert len(of_others.split(".")) == 2
    assert overload(name)._schema.arguments is not None


@pytest.mark.parametrize("path", sorted(Path(compressor.graph.rules.__file__).parent.glob("*.py")))
def test_no_operator_is_named_twice_in_one_file(path: Path, monkeypatch: Any) -> None:
    seen: Counter[str] = Counter()

    def counted(rule: Any, names: str) -> dict[str, Any]:
        found = TABLE(rule, names)
        seen.update(name if "." in name else f"{name}.default" for name in names.split())
        return found

    TABLE = call_module.table  # noqa: N806
    if path.stem not in ("__init__", "call", "facts", "reasons", "uncounted"):
        monkeypatch.setattr(call_module, "table", counted)
        assert set(runpy.run_path(str(path))["RULES"]) == set(seen)
        assert [name for name, count in seen.items() if count > 1] == []


def test_a_second_rule_for_an_operator_is_refused() -> None:
    rules = dict(RULES)
    with pytest.raises(UsageError, match=r"two rules for the operator relu\.default"):
        register("relu.default", elementwise.nothing, rules)
    register("relu.made_up", elementwise.nothing, rules)
    assert rules["relu.made_up"] is elementwise.nothing


def test_nobody_can_enter_a_rule_into_the_table_itself() -> None:
    with pytest.raises(TypeError):
        RULES["relu.default"] = elementwise.nothing  # type: ignore[index]


@pytest.mark.parametrize(
    "table", [facts.WEIGHING, facts.PASSES_ON, facts.SUMS, facts.KEEPS_ZEROS, facts.CHANNEL_COUNTS]
)
def test_facts_are_of_operators_that_have_a_rule(table: Any) -> None:
    assert set(table) <= set(BUILT_IN)


def test_facts_name_arguments_that_the_operators_have() -> None:
    named = {op: {w.input, w.weight, w.bias or w.input} for op, w in facts.WEIGHING.items()}
    for op, names in (named | {op: {name} for op, name in facts.PASSES_ON.items()}).items():
        packet, overload = op.split(".")
        schema = getattr(getattr(torch.ops.aten, packet), overload)._schema
        assert names <= {argument.name for argument in schema.arguments}


def test_a_fact_that_is_said_twice_is_refused() -> None:
    with pytest.raises(UsageError, match=r"names the operator relu\.default twice"):
        facts.known((1, "relu"), (2, "tanh relu.default"))
