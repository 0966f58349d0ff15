"""The comparison that stands before everything that is written."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compressor.agreement import (
    FLOAT16,
    FLOAT32,
    INT8,
    difference,
    is_live,
    shake,
    thin,
    thinning,
    tolerance_of,
)
from compressor.agreement.differences import as_real

EPS = torch.finfo(torch.float32).eps
SHAPES = ((12,), (7, 5, 5), (20, 6), (3, 4, 8))
ACCEPTED = FLOAT32.relative


def outputs(shape: tuple[int, ...], seed: int = 0) -> list[list[Tensor]]:
    """Of one output for inputs of 4 samples and of 5."""
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(batch, *shape, generator=generator)] for batch in (4, 5)]


def changed(cases: list[list[Tensor]], change: Callable[[Tensor], Tensor]) -> list[list[Tensor]]:
    return [[change(x.clone()) for x in case] for case in cases]


@st.composite
def recodings(draw: st.DrawFn) -> tuple[tuple[int, ...], int, list[tuple[float, float]], int]:
    """A shape, the dimension of its channels, per channel a factor and an offset that float32 can
    hold beside it, and a seed."""
    shape = draw(st.sampled_from(SHAPES))
    dim = draw(st.integers(1, len(shape)))
    factor = st.one_of(
        st.floats(-6, 9).map(lambda power: 10**power),
        st.sampled_from([0.0, math.inf, -math.inf]),
    )
    channel = st.tuples(factor, st.floats(-100, 100))
    size = shape[dim - 1]
    return (
        shape,
        dim,
        draw(st.lists(channel, min_size=size, max_size=size)),
        draw(st.integers(0, 9)),
    )


def recoded(x: Tensor, dim: int, channels: list[tuple[float, float]]) -> Tensor:
    """Channels times their factor plus their offset; a factor of 0 makes a constant, an infinite
    one an infinity."""
    for place, (factor, offset) in enumerate(channels):
        channel = x.select(dim, place)
        if math.isinf(factor):
            channel.fill_(factor)
        else:
            channel.mul_(factor).add_(offset * (factor or 1e9))
    return x


@settings(max_examples=30, deadline=None, derandomize=True)
@given(recodings(), st.integers(0, 1000))
def test_a_mistake_of_a_per_cent_in_one_channel_is_found_and_rounding_is_none(
    recoding: tuple[tuple[int, ...], int, list[tuple[float, float]], int], which: int
) -> None:
    shape, dim, channels, seed = recoding
    cases = changed(outputs(shape, seed), lambda x: recoded(x, dim, channels))
    noise = torch.Generator().manual_seed(seed)

    def rounded(x: Tensor) -> Tensor:
        return x * (1 + 4 * EPS * (2 * torch.rand(x.shape, generator=noise) - 1))

    found = changed(cases, rounded)
    assert difference(cases, found).size <= ACCEPTED
    varying = [i for i, (factor, _) in enumerate(channels) if 0 < factor < math.inf]
    if not varying:
        return
    place = varying[which % len(varying)]

    def mistaken(x: Tensor) -> Tensor:
        channel, (factor, offset) = x.select(dim, place), channels[place]
        channel.add_(0.01 * (channel - offset * factor))
        return x

    worst = difference(cases, changed(found, mistaken))
    assert worst.size > ACCEPTED
    index = [int(i) for i in worst.place.partition("[")[2].partition("]")[0].split(",")]
    assert index[dim] == place


@pytest.mark.parametrize("fill", [-1e4, -1e9, -math.inf])
def test_constants_in_most_places_hide_nothing(fill: float) -> None:
    """Nine of ten moves of a policy are illegal."""
    cases = outputs((40,))
    legal = [torch.rand(x.shape) < 0.1 for (x,) in cases]
    filled = [[x.where(here, fill)] for (x,), here in zip(cases, legal, strict=True)]
    other = [[(1.01 * x).where(here, fill)] for (x,), here in zip(cases, legal, strict=True)]
    assert difference(filled, filled).size == 0
    assert difference(filled, other).size > 10 * ACCEPTED


def test_added_constants_hide_nothing() -> None:
    """A mask that is added leaves something of the logits in what it hides."""
    cases = outputs((40,))
    hidden = torch.rand(40) < 0.8
    masked = changed(cases, lambda x: x - 1e4 * hidden)
    assert difference(masked, changed(cases, lambda x: 1.01 * x - 1e4 * hidden)).size > 1e-3


def test_what_is_not_finite_must_stand_in_the_same_places() -> None:
    cases = changed(outputs((6,)), lambda x: x.index_fill(1, torch.tensor(2), math.nan))
    assert difference(cases, cases).size == 0
    moved = changed(cases, lambda x: x.index_fill(1, torch.tensor(3), math.nan))
    assert difference(cases, moved).size == math.inf
    signs = [[[torch.tensor([math.inf, 1.0])]], [[torch.tensor([-math.inf, 1.0])]]]
    assert difference(*signs).size == math.inf


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.tensor(2.0), torch.tensor(2.002)),
        (torch.tensor([1, 2, 3]), torch.tensor([1, 2, 4])),
        (torch.tensor([True, False]), torch.tensor([True, True])),
        (torch.tensor([1 + 1j, 2 - 1j]), torch.tensor([1 + 1j, 2 - 1.01j])),
        (torch.zeros(3), torch.tensor([0, 1e-9, 0])),
        (torch.zeros(2, 3), torch.zeros(3, 2)),
    ],
)
def test_outputs_of_every_kind_are_compared(one: Tensor, other: Tensor) -> None:
    assert difference([[one], [one]], [[one], [one.clone()]]).size == 0
    assert difference([[one], [one]], [[one], [other]]).size > ACCEPTED


def test_an_empty_output_is_like_another() -> None:
    assert difference([[torch.zeros(2, 0)]], [[torch.zeros(2, 0)]]).size == 0


def test_the_place_is_said() -> None:
    cases = [[torch.zeros(2), x] for (x,) in outputs((4, 3))]
    other = [[a, x.index_fill(2, torch.tensor(1), 7.5)] for a, x in cases]
    place = difference(cases, other).place
    assert place.startswith("output 1 at [")
    assert "against 7.5" in place


@pytest.mark.parametrize("shape", [(50, 9), (4, 30, 8)])
def test_of_very_large_outputs_evenly_spaced_rows_are_compared(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake in one column, or in one channel, is found in the rows that are left."""
    cases = outputs(shape)
    assert all(thin(x) is x for (x,) in cases)
    monkeypatch.setattr(thinning, "LARGE", 200)
    few = [thin(x) for (x,) in cases]
    for kept, (x,) in zip(few, cases, strict=True):
        assert kept[0].numel() <= 200 and kept.shape[:-2] == x.shape[:-2]
        assert torch.equal(kept[..., [0, -1], :], x[..., [0, -1], :]) and thin(kept) is kept
    assert few[0].shape[1:] == few[1].shape[1:]
    assert difference(cases, [[x] for x in few]).size == 0

    def wrong(x: Tensor) -> Tensor:
        (x[..., -1] if x.dim() == 3 else x[:, 1]).mul_(1.01)
        return x

    assert difference(cases, changed(cases, wrong)).size > ACCEPTED


def test_large_complex_outputs_keep_all_their_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their parts are a dimension more, which moves none of the rows."""
    monkeypatch.setattr(thinning, "LARGE", 200)
    cases = [[torch.complex(x, x.flip(0))] for (x,) in outputs((50, 9))]

    def wrong(x: Tensor) -> Tensor:
        x[..., 4] *= 1.01
        return x

    for column in as_real(cases[0][0]).unbind(2):
        assert column.shape == (4, 200 // 9, 2)
    assert difference(cases, changed(cases, wrong)).size > ACCEPTED


def test_types_have_tolerances() -> None:
    assert tolerance_of(torch.float32) is FLOAT32
    assert tolerance_of(torch.float16) is FLOAT16
    halves = changed(outputs((8, 8)), lambda x: (x + 3).half())
    assert difference(changed(outputs((8, 8)), lambda x: x + 3), halves, FLOAT16).size < 0.01
    eights = changed(outputs((8, 8)), lambda x: (x * 16).round() / 16)
    assert difference(outputs((8, 8)), eights, INT8).size < INT8.relative


# -- rounding ------------------------------------------------------------------------------------


class Cancelling(nn.Module):
    """Its first output has a part that is nothing but rounding, its second says where the first is
    largest."""

    def __init__(self, large: float) -> None:
        super().__init__()
        self.large, generator = large, torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(16, 16, generator=generator))
        self.one = nn.Parameter(torch.randn(16, 16, generator=generator))
        self.other = nn.Parameter(self.one.detach().flip(0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = x @ self.weight + self.large * (x @ self.one - x.flip(1) @ self.other)
        return y, y.argmax(1)


def computed(module: nn.Module, dtype: torch.dtype = torch.float32) -> list[list[Tensor]]:
    inputs = [torch.randn(n, 16, generator=torch.Generator().manual_seed(n)) for n in (4, 5)]
    return [list(module.to(dtype)(x.to(dtype))) for x in inputs]


def test_what_rounding_does_to_the_network_is_no_difference() -> None:
    net = Cancelling(3e2)
    with torch.no_grad():
        single, double = computed(net), computed(Cancelling(3e2), torch.float64)
    assert difference(single, double).size > ACCEPTED
    found = difference(single, double, rounding=lambda: shake(net, computed))
    assert found.size <= ACCEPTED


def test_where_rounding_hides_everything_nothing_is_put_down_to_it() -> None:
    net = Cancelling(3e4)
    with torch.no_grad():
        single, double = computed(net), computed(Cancelling(3e4), torch.float64)
    assert difference(single, double, rounding=lambda: shake(net, computed)).size > ACCEPTED


def test_a_mistake_is_not_put_down_to_rounding() -> None:
    net, other = Cancelling(10), Cancelling(10)
    with torch.no_grad():
        other.weight[:, 3] *= 1.01
        found = difference(computed(net), computed(other), rounding=lambda: shake(net, computed))
    assert found.size > ACCEPTED


# -- networks that answer to nothing --------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda x: x, True),
        (lambda x: 1e-7 * x, True),
        (lambda x: x.index_fill(1, torch.tensor(0), -1e9), True),
        (lambda x: x.index_fill(1, torch.tensor(0), -math.inf), True),
        (lambda x: x * 0 + 3, False),
        (lambda x: x * math.inf, False),
        (lambda x: 1e6 + x, False),
    ],
)
def test_outputs_answer_to_inputs_relative_to_themselves(
    change: Callable[[Tensor], Tensor], expected: bool
) -> None:
    assert is_live(changed(outputs((6,)), change)) is expected
