"""Every rule against its operator: the sizes agree, and what the rule lets go can go."""

from __future__ import annotations

import runpy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
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

import compressor.rules
from compressor.errors import UsageError
from compressor.rules import RULES, elementwise, register
from compressor.rules import call as call_module

GENERATOR = torch.Generator().manual_seed(0)


def t(*shape: int) -> Tensor:
    """Numbers between 0.1 and 1, in float64."""
    return torch.rand(shape, generator=GENERATOR, dtype=torch.float64) * 0.9 + 0.1


def i(high: int, *shape: int) -> Tensor:
    return torch.randint(high, shape, generator=GENERATOR)


def row(name: str, free: int, *arguments: Any, zero: tuple[Any, ...] = (), **named: Any) -> Any:
    """An operator's call, and how many axes its rule leaves free to lose indices."""
    name = name if "." in name else f"{name}.default"
    return pytest.param(name, free, arguments, named, zero, id=f"{name}-{free}")


CALLS = [
    # convolutions: groups, in and out of a group are three axes
    row("conv1d", 3, t(2, 4, 9), t(6, 4, 3), t(6), [2], [1]),
    row("conv2d", 4, t(2, 8, 5, 5), t(12, 2, 3, 3), None, [1, 1], [0, 0], [1, 1], 4),
    row("conv2d", 2, t(2, 6, 5, 5), t(6, 1, 3, 3), t(6), [1, 1], [1, 1], [1, 1], 6),
    row("conv2d.padding", 3, t(2, 4, 5, 5), t(6, 4, 3, 3), t(6), [1, 1], "same"),
    row("conv3d", 4, t(2, 4, 3, 3, 3), t(6, 2, 2, 2, 2), t(6), [1] * 3, [0] * 3, [1] * 3, 2),
    row("conv_transpose1d", 3, t(2, 4, 5), t(4, 6, 3), t(6)),
    row("conv_transpose2d.input", 4, t(2, 6, 4, 4), t(6, 3, 2, 2), t(6), [2, 2], groups=2),
    row("conv_transpose3d.input", 3, t(2, 4, 2, 2, 2), t(4, 3, 2, 2, 2)),
    # products
    row("linear", 4, t(2, 3, 4), t(5, 4), t(5)),
    row("linear", 2, t(2, 4), t(4)),
    row("matmul", 4, t(2, 4, 3), t(3, 5)),
    row("matmul", 5, t(2, 1, 4, 3), t(6, 3, 5)),
    row("matmul", 3, t(3), t(2, 3, 5)),
    row("matmul", 3, t(2, 4, 3), t(3)),
    row("mm", 3, t(4, 3), t(3, 5)),
    row("bmm", 4, t(2, 4, 3), t(2, 3, 5)),
    row("mv", 2, t(4, 3), t(3)),
    row("dot", 1, t(4), t(4)),
    row("addmm", 3, t(5), t(4, 3), t(3, 5)),
    row("baddbmm", 4, t(2, 4, 5), t(2, 4, 3), t(2, 3, 5)),
    row("einsum", 5, "bhid,bhjd->bhij", [t(2, 3, 4, 5), t(2, 3, 6, 5)]),
    row("einsum", 4, "bij,jk->bik", [t(2, 3, 4), t(4, 5)]),
    row("einsum", 0, "bij,jk", [t(2, 3, 4), t(4, 5)]),
    row(
        *("scaled_dot_product_attention", 4, t(2, 4, 3, 6), t(2, 4, 5, 6), t(2, 4, 5, 7)),
        zero=(("query", 3),),
    ),
    row(
        *("scaled_dot_product_attention", 5, t(2, 6, 3, 4), t(2, 3, 5, 4), t(2, 3, 5, 4)),
        zero=(("query", 3),),
        enable_gqa=True,
    ),
    row(
        *("scaled_dot_product_attention", 4, t(2, 4, 3, 6), t(2, 4, 5, 6), t(2, 4, 5, 7)),
        zero=(("query", 3),),
        attn_mask=t(4, 3, 5),
        scale=0.5,
    ),
    # norms: a statistic's own dimensions are not for dropping
    row("batch_norm", 3, t(2, 6, 3), t(6), t(6), t(6), t(6), False, 0.1, 1e-5, False),
    row("batch_norm", 1, t(2, 6, 3), t(6), t(6), t(6), t(6), True, 0.1, 1e-5, False),
    row("instance_norm", 1, t(2, 6, 3), t(6), t(6), None, None, True, 0.1, 1e-5, False),
    row("layer_norm", 2, t(2, 3, 6), [6], t(6), t(6)),
    row("rms_norm", 2, t(2, 3, 6), [6], t(6)),
    row("group_norm", 2, t(2, 6, 4), 3, t(6), t(6)),
    # pooling and resampling
    row("avg_pool2d", 2, t(2, 4, 6, 6), [2, 2]),
    row("max_pool1d", 2, t(2, 4, 6), [2]),
    row("max_pool2d_with_indices", 2, t(2, 4, 6, 6), [2, 2]),
    row("adaptive_avg_pool2d", 2, t(2, 4, 6, 6), [1, 1]),
    row("adaptive_max_pool3d", 2, t(2, 4, 3, 3, 3), [2, 2, 2]),
    row("avg_pool3d", 2, t(2, 4, 4, 4, 4), [2, 2, 2]),
    row("reflection_pad2d", 2, t(2, 4, 6, 6), [1, 1, 1, 1]),
    row("upsample_linear1d", 2, t(2, 4, 6), [8], False),
    row("upsample_nearest2d.vec", 2, t(2, 4, 6, 6), None, [2.0, 2.0]),
    row("upsample_bilinear2d.vec", 2, t(2, 4, 6, 6), [9, 9], True, None),
    row("upsample_trilinear3d", 2, t(2, 4, 3, 3, 3), [4, 4, 4], False),
    # reductions
    row("mean.dim", 2, t(2, 4, 6), [-1]),
    row("mean", 0, t(2, 4, 6)),
    row("sum.dim_IntList", 1, t(2, 4, 6), [1, 2], True),
    row("amax", 2, t(2, 4, 6), [1]),
    row("var.correction", 2, t(2, 4, 6), [0]),
    row("var_mean.correction", 2, t(2, 4, 6), [2], keepdim=True),
    row("norm.ScalarOpt_dim", 2, t(2, 4, 6), 2, [1], True),
    row("linalg_vector_norm", 2, t(2, 4, 6), 2, [1]),
    row("max.dim", 2, t(2, 4, 6), 1),
    row("argmax", 2, t(2, 4, 6), 2),
    row("softmax.int", 2, t(2, 4, 6), -1),
    row("cumsum", 2, t(2, 4, 6), 1),
    row("cummax", 2, t(2, 4, 6), 1),
    row("topk", 2, t(2, 4, 6), 3, 1),
    row("sort", 2, t(2, 4, 6), 1),
    # joins and cuts
    row("cat", 5, [t(2, 3, 4), t(2, 5, 4), t(2, 2, 4)], 1),
    row("stack", 2, [t(3, 4), t(3, 4)], -1),
    row("split.Tensor", 3, t(2, 7), 3, 1),
    row("split_with_sizes", 4, t(2, 9), [2, 3, 4], 1),
    row("chunk", 3, t(2, 8), 2, -1),
    row("tensor_split.sections", 4, t(2, 7), 3, 1),
    row("slice.Tensor", 4, t(2, 9), 1, 2, 6),
    row("slice.Tensor", 3, t(2, 9), 1, -4, None),
    row("slice.Tensor", 2, t(2, 8), 1, 0, 2**63 - 1, 2),
    row("slice.Tensor", 1, t(2, 9), 1, 1, 8, 2),
    row("slice.Tensor", 2, t(2, 9), 1, 0, 2**63 - 1),
    row("narrow", 4, t(2, 9), 1, 3, 4),
    row("select.int", 2, t(2, 4, 6), 1, 2),
    row("unbind.int", 2, t(2, 3, 6), 1),
    row("slice_scatter", 2, t(2, 6, 4), t(2, 2, 4), 1, 1, 3),
    row("select_scatter", 2, t(2, 6, 4), t(2, 4), 1, 1),
    # look-ups
    row("embedding", 3, t(7, 4), i(7, 2, 3)),
    row("index_select", 2, t(2, 5, 4), 1, i(5, 3)),
    row("index.Tensor", 2, t(2, 5, 4), [None, i(5, 3)]),
    row("index.Tensor", 1, t(2, 5, 4), [i(2, 3), None, i(4, 3)]),
    row("index.Tensor", 1, t(2, 5, 4), [None, i(5, 3, 2), i(4, 3, 2)]),
    row("gather", 2, t(2, 5, 4), 1, i(5, 2, 3, 4)),
    # other layouts
    row("view", 3, t(2, 12), [2, 3, -1]),
    row("view", 3, t(2, 3, 4), [6, 4]),
    row("reshape", 3, t(4, 6), [8, 3]),
    row("reshape", 0, t(4, 6), [3, 8]),
    row("flatten.using_ints", 3, t(2, 3, 4), 1),
    row("unflatten.int", 3, t(2, 12), 1, [3, 4]),
    row("permute", 3, t(2, 3, 4), [2, 0, 1]),
    row("transpose.int", 3, t(3, 3, 4), 0, -1),
    row("swapaxes", 3, t(2, 3, 4), 0, 1),
    row("t", 2, t(2, 3)),
    row("numpy_T", 2, t(2, 3)),
    row("mT", 3, t(2, 3, 4)),
    row("movedim.int", 3, t(2, 3, 4), 0, 2),
    row("movedim.intlist", 4, t(2, 3, 4, 5), [0, 1], [-1, 0]),
    row("squeeze", 2, t(2, 1, 4)),
    row("squeeze.dim", 2, t(2, 1, 4), 1),
    row("squeeze.dims", 2, t(2, 1, 4), [0, 1]),
    row("unsqueeze", 2, t(2, 4), -1),
    row("expand", 4, t(2, 1, 4), [3, -1, 5, 4]),
    row("expand_as", 3, t(2, 1), t(3, 2, 4)),
    row("repeat", 4, t(2, 4), [3, 1, 2]),
    row("repeat_interleave.self_int", 3, t(2, 4), 3, 1),
    row("channel_shuffle", 3, t(2, 12, 3), 3),
    row("pixel_shuffle", 2, t(2, 12, 3, 3), 2),
    row("pixel_unshuffle", 2, t(2, 3, 4, 4), 2),
    row("flip", 2, t(2, 3, 4), [1]),
    row("roll", 2, t(2, 3, 4), [1], [2]),
    row("im2col", 2, t(2, 3, 5, 5), [2, 2], [1, 1], [0, 0], [1, 1]),
    row("pad", 5, t(2, 3, 4), [1, 2, 3, 0]),
    row("pad", 0, t(2, 3, 4), [1, 2], "reflect"),
    row("constant_pad_nd", 0, t(2, 6, 4), [0, 0, -1, 2]),
    # out of nothing
    row("zeros", 2, [3, 4]),
    row("full", 2, [3, 4], 2.0),
    row("new_ones", 4, t(2, 3), [3, 4]),
    row("arange", 0, 5),
    row("eye", 0, 4),
    row("tril", 0, t(4, 4)),
    # element by element
    row("add.Tensor", 3, t(2, 3, 4), t(3, 1)),
    row("where.self", 2, t(2, 3) > 0.5, t(2, 3), t(3)),
    row("where.ScalarOther", 2, t(2, 3) > 0.5, t(2, 3), 0.0),
    row("masked_fill.Scalar", 3, t(2, 3, 4), t(3, 4) > 0.5, 0.0),
    row("add_.Tensor", 2, t(2, 3), t(3)),
    row("prelu", 3, t(2, 3, 4), t(3)),
    row("prelu", 3, t(2, 3, 4), t(1)),
    row("to.dtype", 2, t(2, 3), torch.float32),
    row("dropout", 2, t(2, 3), 0.5, False),
]


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
    called = {RULES[parameters.values[0]] for parameters in CALLS}
    assert set(RULES.values()) - called <= {elementwise.nothing}


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
    "clamp.Tensor": {"min": t(3, 4)},
    "fill.Tensor": {"value": t()},
    "fill_.Tensor": {"value": t()},
    "masked_fill.Tensor": {"value": t(), "mask": t(3, 4) > 0.5},
    "masked_fill_.Tensor": {"value": t(), "mask": t(3, 4) > 0.5},
    "masked_fill.Scalar": {"mask": t(3, 4) > 0.5},
    "masked_fill_.Scalar": {"mask": t(3, 4) > 0.5},
    "bitwise_and.Scalar": {"self": i(9, 3, 4), "other": 6},
    "bitwise_or.Scalar": {"self": i(9, 3, 4), "other": 6},
}
"""Arguments that the types in the schema do not tell."""
CHANCE = ("rand", "bernoulli", "normal_", "uniform_", "empty", "native_dropout")
ELEMENTWISE = [
    name
    for name, rule in RULES.items()
    if rule in (elementwise.elementwise, elementwise.like_first)
]


def simple_call(name: str) -> Solved:
    """The operator on what its schema wants: tensors of one shape, of the first type it takes."""
    wanted = [a for a in overload(name)._schema.arguments if not a.has_default_value()]
    given = {a.name: BY_TYPE[_type_name(a.type)]() for a in wanted} | NEEDED.get(name, {})
    for kind in (None, torch.int64, torch.bool):
        typed = {k: v.to(kind) if isinstance(v, Tensor) and kind else v for k, v in given.items()}
        try:
            return solve(name, **typed)
        except (RuntimeError, NotImplementedError):
            continue
    raise AssertionError(f"{name} takes none of the types")


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


@pytest.mark.parametrize("name", RULES)
def test_the_operator_exists(name: str) -> None:
    assert name.count(".") == 1
    assert overload(name)._schema.arguments is not None


@pytest.mark.parametrize("path", sorted(Path(compressor.rules.__file__).parent.glob("*.py")))
def test_no_operator_is_named_twice_in_one_file(path: Path, monkeypatch: Any) -> None:
    seen: Counter[str] = Counter()

    def counted(rule: Any, names: str) -> dict[str, Any]:
        found = TABLE(rule, names)
        seen.update(name if "." in name else f"{name}.default" for name in names.split())
        return found

    TABLE = call_module.table  # noqa: N806
    if path.stem not in ("__init__", "call"):
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
