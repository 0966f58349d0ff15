"""Widths of heads that are cut: what is kept of them is turned to where it carries the most."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import zoo_attention as zoo
from networks import FusedAttention, GroupedQuery, MultiHead, SeparateAttention
from torch import Tensor, nn

import compressor
from compressor.graph.analysis import analyse
from compressor.graph.network import Network
from compressor.graph.trace import trace
from compressor.least_squares import reconstruction_scores, refit, turn_heads
from compressor.least_squares.head_bases import Turning, best_bases
from compressor.records import ExampleInputs, Trace
from compressor.slicing import as_module
from compressor.slicing.program import slice_program

Inputs = tuple[Tensor, ...]


def analysed(model: nn.Module, positions: int = 7) -> tuple[Trace, Network, Inputs]:
    torch.manual_seed(1)
    found = trace(model.double().eval(), ExampleInputs((torch.randn(2, positions, 5).double(),)))
    return found, analyse(found), (torch.randn(16, positions, 5).double(),)


def cut(
    model: nn.Module, kept: Callable[[int], tuple[int, ...]], positions: int = 7
) -> tuple[nn.Module, nn.Module, Turning, Inputs]:
    """Cut all widths of heads; return the turned original, the smaller program as modules, what was
    turned, and the samples."""
    found, network, inputs = analysed(model, positions)
    widths = [group for group in network.groups if group.role == "head_width"]
    masks = network.masks({group.name: kept(group.size) for group in widths})
    smaller = slice_program(found, network, masks)
    turning = turn_heads(found.program, smaller, network, masks, lambda: [inputs])
    return as_module(turning.program), as_module(smaller), turning, inputs


def first(size: int) -> tuple[int, ...]:
    return tuple(range((size + 1) // 2))


TURNED = {
    "fused": (FusedAttention, 2, 7),
    "written out": (SeparateAttention, 2, 7),
    "nn.MultiheadAttention": (MultiHead, 2, 7),
    "chunked": (zoo.fused_qkv_chunked, 2, 7),
    "grouped, expanded": (zoo.grouped_query_expand, 2, 7),
    "grouped, repeated": (zoo.grouped_query_repeat_interleave, 2, 7),
    "grouped, fused": (zoo.grouped_query_fused, 2, 7),
    "relative positions": (zoo.relative_positions_squared, 2, 9),
    "two layers": (zoo.transformer_encoder, 4, 7),
}
"""Attention -> its maker, the pairs of weights that meet in it, positions."""


@pytest.mark.parametrize("name", TURNED)
def test_turning_changes_no_output_and_loses_less(name: str) -> None:
    make, pairs, positions = TURNED[name]
    torch.manual_seed(0)
    model = make()
    turned, _, turning, inputs = cut(model, first, positions)
    assert len(turning.turned) == pairs
    assert not turning.left
    for each in turning.turned:
        assert 0 < each.after < 0.8 * each.before
    torch.testing.assert_close(turned(*inputs), model(*inputs), rtol=1e-9, atol=1e-11)


def test_a_rotary_embedding_between_leaves_queries_and_keys() -> None:
    for make in (GroupedQuery, zoo.rotary_halves):
        torch.manual_seed(0)
        model = make()
        turned, _, turning, inputs = cut(model, first)
        assert [each.is_product for each in turning.turned] == [False]
        assert set(turning.left) == {"q.weight", "k.weight"}
        torch.testing.assert_close(turned(*inputs), model(*inputs), rtol=1e-9, atol=1e-11)


def test_what_is_read_twice_is_left() -> None:
    """Queries meet a table of distances, too."""
    torch.manual_seed(0)
    _, _, turning, _ = cut(zoo.relative_shift(), first, 9)
    assert [each.is_product for each in turning.turned] == [False]
    assert turning.left == ["qkv.weight"]


# -- widths that others can stand for ----------------------------------------------------------


def with_dependent_widths(model: nn.Module) -> nn.Module:
    """The last of three channels of each head is a sum of the others: another one per head."""
    sides = [model.qkv] if hasattr(model, "qkv") else [model.q, model.k, model.v]
    with torch.no_grad():
        for linear in sides:
            heads = linear.weight.view(-1, 3, linear.in_features)
            biases = linear.bias.view(-1, 3)
            mix = torch.randn(len(heads), 2)
            heads[:, 2] = torch.einsum("he,hei->hi", mix, heads[:, :2])
            biases[:, 2] = (mix * biases[:, :2]).sum(1)
    return model


@pytest.mark.parametrize("make", [FusedAttention, SeparateAttention])
@pytest.mark.parametrize("kept", [(0, 1), (0, 2), (1, 2)])
def test_widths_that_the_kept_ones_span_cost_nothing(
    make: type[nn.Module], kept: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    model = with_dependent_widths(make())
    _, smaller, turning, inputs = cut(model, lambda size: kept)
    assert all(each.after < 1e-10 for each in turning.turned)
    expected = model(*inputs)
    difference = float((smaller(*inputs) - expected).detach().abs().max())
    assert difference < 1e-8


def test_the_best_channels_are_those_of_the_decomposition() -> None:
    """No other projection of two channels a side comes closer to the logits."""
    torch.manual_seed(0)
    mix = torch.randn(2, 1, 5, 5).double()
    q, k = (torch.randn(1, 90, 5).double() @ some for some in mix)
    a, b, _ = best_bases(q.mT @ q / 90, k.mT @ k / 90)
    torch.testing.assert_close(a.mT @ b, torch.eye(5).double()[None])
    logits = q @ k.mT
    u, s, vt = torch.linalg.svd(logits)
    best = (u[:, :, :2] * s[:, :2]) @ vt[:, :2]
    torch.testing.assert_close((q @ a[:, :2].mT) @ (k @ b[:, :2].mT).mT, best)


def test_turned_heads_leave_less_to_the_refit() -> None:
    torch.manual_seed(0)
    found, network, inputs = analysed(zoo.transformer_encoder())
    widths = [group for group in network.groups if group.role == "head_width"]
    masks = network.masks({group.name: first(group.size) for group in widths})
    expected = as_module(found.program)(*inputs)

    def error(turns: bool) -> float:
        smaller, aim = slice_program(found, network, masks), found.program
        if turns:
            aim = turn_heads(aim, smaller, network, masks, lambda: [inputs]).program
        refit(aim, smaller, network, masks, lambda: [inputs])
        return float((as_module(smaller)(*inputs) - expected).detach().square().mean())

    assert error(True) < 0.6 * error(False)


# -- whole heads -------------------------------------------------------------------------------


def test_a_head_that_another_stands_for_goes_first_and_whole() -> None:
    """Head 3 computes what head 1 does; together, not one by one, its features are superfluous."""
    torch.manual_seed(0)
    model = SeparateAttention()
    with torch.no_grad():
        for tensor in (x for side in (model.q, model.k, model.v) for x in (side.weight, side.bias)):
            tensor[9:] = tensor[3:6]
    found, network, inputs = analysed(model)
    batches = [(torch.randn(40, 7, 5).double(),) for _ in range(12)]
    (group,) = [each for each in network.groups if each.role == "heads"]
    scores = reconstruction_scores(found, network, lambda: batches)[group.name]
    gone = int(np.argmin(scores))
    assert gone in (1, 3)
    masks = network.masks({group.name: tuple({0, 1, 2, 3} - {gone})})
    smaller = slice_program(found, network, masks)
    refit(found.program, smaller, network, masks, lambda: batches, ridge=1e-12)
    difference = (as_module(smaller)(*inputs) - model(*inputs)).detach().abs().max()
    assert float(difference) < 1e-6


# -- the command -------------------------------------------------------------------------------


def test_the_widths_of_heads_go_only_when_asked_and_are_said() -> None:
    torch.manual_seed(0)
    model, x = FusedAttention(), torch.randn(64, 7, 5)
    data = torch.utils.data.TensorDataset(x)
    result = compressor.compress(
        model, x[:1], ratio=0.4, data=data, prune=("head_width",), round_to=1
    )
    assert any(entry["role"] == "head_width" for entry in result.plan.groups.values())
    said = " ".join(result.report["notes"])
    assert "most of the logits" in said
    assert "what values add" in said
    assert result.module(x).shape == model(x).shape
