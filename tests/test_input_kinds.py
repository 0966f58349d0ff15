"""Inputs to compare on are of the user's kind: nothing is drawn that the given ones do not bear
out."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor

from compressor.agreement import fresh_inputs, other_inputs
from compressor.agreement.kinds import kind_of
from compressor.records import ExampleInputs

GENERATOR = torch.Generator().manual_seed(0)
POSITIVE = torch.rand(2, 40, generator=GENERATOR) * 0.05 + 1e-6
NORMAL = torch.randn(2, 3, 8, 8, generator=GENERATOR)
TABLES = torch.tensor([[3, 900, 0, 17], [2, 950, 1, 17]])
ONE_HOT = torch.eye(5)[torch.tensor([[0, 2, 4], [1, 1, 3]])]
PADDED = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]])
LEGAL = torch.tensor([[1.0, 0, 1, 0, 0, 1], [0, 1, 1, 0, 1, 1]])
CAUSAL = torch.full((6, 6), -torch.inf).triu(1)
GRAPH = torch.tensor([[0.0, 1, 0, 0], [1, 0, 1, 1], [0, 1, 0, 0], [0, 1, 0, 0]])
LENGTHS = torch.tensor([9, 4, 7])
POSITIONS = torch.arange(16).expand(2, 16)
TIMES = torch.rand(2, 30, 1, generator=GENERATOR).cumsum(1)
SHARES = torch.randn(2, 10, generator=GENERATOR).softmax(-1)
DISTANCES = torch.cdist(NORMAL[0, 0], NORMAL[0, 0])
DISTANCES = (DISTANCES + DISTANCES.mT) / 2
DEPTHS = POSITIVE.clone().index_fill(1, torch.tensor([2, 7]), torch.inf)

Check = Callable[[Tensor], bool]


def rows(x: Tensor) -> list[tuple[float, ...]]:
    return sorted(tuple(row) for row in x.flatten(1).tolist())


KINDS: dict[str, tuple[Tensor, str, Check]] = {
    "positive": (POSITIVE, "numbers", lambda x: bool((x >= 1e-6).all())),
    "signs": (NORMAL, "numbers", lambda x: not bool((x == x.round()).all())),
    "tables": (TABLES, "integers", lambda x: bool((x >= 0).all())),
    "one-hot": (ONE_HOT, "one-hot", lambda x: bool((x.sum(-1) == 1).all() and x.max() == 1)),
    "padding": (PADDED, "a mask in order", lambda x: rows(x) == rows(PADDED)),
    "legal": (LEGAL, "a mask", lambda x: torch.equal(x.sum(1), LEGAL.sum(1))),
    "causal": (CAUSAL, "a mask in order", lambda x: rows(x) == rows(CAUSAL)),
    "graph": (GRAPH, "a symmetric mask", lambda x: torch.equal(x, x.mT) and x.sum() == 6),
    "lengths": (LENGTHS, "an integer per sample", lambda x: bool((x >= 4).all())),
    "positions": (POSITIONS, "in order", lambda x: bool((x.diff(dim=1) >= 0).all())),
    "times": (TIMES, "in order", lambda x: bool((x.diff(dim=1) >= 0).all())),
    "shares": (SHARES, "shares or directions", lambda x: torch.allclose(x.sum(-1), torch.ones(2))),
    "distances": (DISTANCES, "symmetric", lambda x: torch.equal(x, x.mT)),
    "depths": (DEPTHS, "not finite in places", lambda x: torch.equal(x.isinf(), DEPTHS.isinf())),
    "all alike": (torch.full((2, 4), 3.5), "constant", lambda x: bool((x == 3.5).all())),
}


@cache
def beside_noise(name: str, draw: Callable[..., ExampleInputs]) -> Tensor:
    return draw(ExampleInputs((NORMAL,), {"x": KINDS[name][0]})).kwargs["x"]


@pytest.mark.parametrize("draw", [other_inputs, fresh_inputs])
@pytest.mark.parametrize("name", KINDS)
def test_what_is_drawn_is_of_the_given_kind(name: str, draw: Callable[..., ExampleInputs]) -> None:
    given, kind, holds = KINDS[name]
    found = beside_noise(name, draw)
    assert kind_of(given).name == kind
    assert (found.shape, found.dtype) == (given.shape, given.dtype)
    assert given.min() <= found.min()
    assert found.max() <= given.max()
    assert holds(found)


@pytest.mark.parametrize("name", ["positive", "signs", "tables", "one-hot", "legal", "times"])
def test_what_is_drawn_is_something_else(name: str) -> None:
    given = KINDS[name][0]
    for draw in (other_inputs, fresh_inputs):
        assert not torch.equal(beside_noise(name, draw), given)


def test_every_place_keeps_its_sign_and_the_range_of_its_table() -> None:
    assert ((beside_noise("signs", other_inputs) * NORMAL) >= 0).all()
    assert (beside_noise("tables", other_inputs) <= TABLES.amax(0)).all()


@pytest.mark.parametrize("only", [torch.zeros(1, 3, 8, 8), torch.ones(2, 6, dtype=torch.int64)])
def test_zeros_that_only_say_the_shape_are_filled(only: Tensor) -> None:
    (found,) = other_inputs(ExampleInputs((only,)), more=True).args
    assert found.shape == (len(only) + 1, *only.shape[1:])
    assert len(found.unique()) > 1
    assert found.min() >= 0


def test_samples_of_the_data_do_not_shine_through() -> None:
    found = beside_noise("positive", fresh_inputs)
    assert not set(found.flatten().tolist()) & set(POSITIVE.flatten().tolist()[1:-1]) - {
        float(POSITIVE.min()),
        float(POSITIVE.max()),
    }
