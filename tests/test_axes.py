"""The algebra against plain Python sets: a position is the set of (axis, index) atoms it stands on,
and it is lost as soon as one of them is dropped."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from expressions import (
    Atoms,
    Spec,
    build,
    expressions,
    filled,
    positions,
    shared_expressions,
    sharings,
    sizes_in,
    specs,
    splits,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.graph.axes import (
    EMPTY,
    UNIT,
    Axis,
    Dim,
    Product,
    Sum,
    coordinates,
    keep_mask,
    leaves,
    repeated_in_product,
    same,
    size_after,
)
from compressor.graph.solver import Reason, Solver

REASON = Reason("a test")
# -- the slow model ------------------------------------------------------------------------------


def free_positions(solver: Solver, dim: Dim) -> list[Atoms]:
    """The same after solving, without the atoms of protected axes: those are never dropped."""
    return [
        frozenset((axis, i) for axis, i in atoms if not solver.is_kept(axis))
        for atoms in positions(solver.normal(dim))
    ]


def substituted(solver: Solver, dim: Dim) -> list[Atoms]:
    """An unsolved expression's positions, each of its axes replaced by what it was solved to."""
    solved = {axis: free_positions(solver, axis) for axis in leaves(dim)}
    return [frozenset().union(*(solved[axis][i] for axis, i in atoms)) for atoms in positions(dim)]


def free_axes(solver: Solver, dim: Dim) -> list[Axis]:
    return [a for a in dict.fromkeys(leaves(solver.normal(dim))) if not solver.is_kept(a)]


def assert_solved(solver: Solver, *dims: Dim) -> None:
    """Whatever is dropped of the axes that stayed free, all dimensions lose the same positions,
    and substitution has changed the meaning of none of them."""
    first = free_positions(solver, dims[0])
    assert len(first) == dims[0].size
    for dim in dims:
        assert free_positions(solver, dim) == first
        assert substituted(solver, dim) == first


# -- all small shapes ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [*range(1, 7), pytest.param(7, marks=pytest.mark.slow)])
def test_every_pair_of_expressions_is_solved_soundly(size: int) -> None:
    for one, other in itertools.product(specs(size), repeat=2):
        left, right, solver = build(one), build(other), Solver()
        solver.unify(left, right, REASON)
        assert_solved(solver, left, right)


@pytest.mark.parametrize("size", [*range(2, 6), pytest.param(6, marks=pytest.mark.slow)])
def test_shared_and_protected_axes_are_solved_soundly(size: int) -> None:
    for one, other in itertools.combinations_with_replacement(specs(size), 2):
        sizes = [*sizes_in(one), *sizes_in(other)]
        for axes in sharings(sizes) if len(sizes) < 5 else [[Axis(s) for s in sizes]]:
            for kept in [None, *dict.fromkeys(axes)]:
                places, solver = iter(axes), Solver()
                left, right = filled(one, places), filled(other, places)
                if kept is not None:
                    solver.protect(kept, REASON)
                solver.unify(left, right, REASON)
                assert_solved(solver, left, right)
                assert kept is None or not free_axes(solver, kept)


@pytest.mark.parametrize("size", range(1, 9))
def test_factor_and_cut_describe_the_same_positions(size: int) -> None:
    for spec in specs(size):
        for number in range(size + 1):
            for name, kind in (("factor", Product), ("cut", Sum)):
                dim, solver = build(spec), Solver()
                parts = getattr(solver, name)(dim, number)
                if parts is not None:
                    assert [parts[1].size, parts[0].size][name == "cut"] == number
                    assert_solved(solver, dim, kind(parts))


@given(st.data())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_systems_of_equations_over_larger_expressions(data: st.DataObject) -> None:
    size = data.draw(st.sampled_from([12, 16, 24, 30, 36]))
    pool: dict[int, list[Axis]] = {}

    def axis(n: int) -> Axis:
        known = pool.setdefault(n, [])
        at = data.draw(st.integers(0, len(known)))
        known += [Axis(n)] if at == len(known) else []
        return known[at]

    solver, equations = Solver(), []
    for _ in range(data.draw(st.integers(1, 4))):
        left, right = (
            build(data.draw(expressions(size)), axis),
            build(data.draw(expressions(size)), axis),
        )
        solver.unify(left, right, REASON)
        equations.append((left, right))
    for left, right in equations:
        assert_solved(solver, left, right)


# -- nothing is protected without need -----------------------------------------------------------


def free_sizes(one: Spec, other: Spec) -> list[int]:
    """The sizes of the axes that stay free in `one` when it equals `other`."""
    left, right, solver = build(one), build(other), Solver()
    solver.unify(left, right, REASON)
    assert_solved(solver, left, right)
    return [axis.size for axis in free_axes(solver, left)]


@pytest.mark.parametrize("size", range(1, 9))
def test_an_axis_takes_any_expression(size: int) -> None:
    for spec in specs(size):
        assert free_sizes(size, spec) == free_sizes(spec, size) == sizes_in(spec)


@pytest.mark.parametrize("size", range(2, 8))
def test_sums_are_refined_to_their_common_cutting(size: int) -> None:
    for one, other in itertools.product(splits(size, "+"), repeat=2):
        cuts = {0, *itertools.accumulate(one), *itertools.accumulate(other)}
        pieces = [b - a for a, b in itertools.pairwise(sorted(cuts))]
        assert free_sizes(("+", one), ("+", other)) == [n for n in pieces if n > 1]


@pytest.mark.parametrize("size", [4, 6, 8, 12, 16, 24, 36])
def test_products_are_refined_to_their_common_factoring(size: int) -> None:
    found = 0
    for one, other in itertools.product(splits(size, "*"), repeat=2):
        inner = {math.prod(f[i:]) for f in (one, other) for i in range(len(f) + 1)}
        chain = sorted(inner, reverse=True)
        if all(a % b == 0 for a, b in itertools.pairwise(chain)):
            found += one != other
            factors = [a // b for a, b in itertools.pairwise(chain)]
            assert free_sizes(("*", one), ("*", other)) == factors
    assert found or size in (4, 6)


@pytest.mark.parametrize("terms", [(4, 8), (4, 4, 8), (6, 2), (8, 6, 2)])
def test_a_sum_factors_where_the_inner_size_divides_every_term(terms: tuple[int, ...]) -> None:
    free = free_sizes(("+", terms), ("*", (sum(terms) // 2, 2)))
    assert sorted(free) == sorted([2, *(t // 2 for t in terms if t > 2)])


@pytest.mark.parametrize(("chunks", "size"), [(2, 3), (3, 2), (4, 5)])
def test_equal_chunks_factor_with_their_number_protected(chunks: int, size: int) -> None:
    assert free_sizes(("+", (size,) * chunks), ("*", (chunks, size))) == [size]


def test_chunks_that_are_cut_differently_lose_the_same() -> None:
    """2+3+4+3 in two chunks of 6 is cut after 2 and 5, and after 3: 2+1+2+1, twice."""
    assert free_sizes(("+", (2, 3, 4, 3)), ("*", (2, 6))) == [2, 2]


def test_a_rotated_sum_pairs_its_halves() -> None:
    solver, a, b = Solver(), Axis(3), Axis(3)
    solver.unify(Sum((a, b)), Sum((b, a)), REASON)
    assert same(solver.normal(a), solver.normal(b))
    assert len(free_axes(solver, Sum((a, b)))) == 1


def test_a_transposed_product_of_unequal_sizes_is_protected() -> None:
    solver, a, b = Solver(), Axis(2), Axis(3)
    solver.unify(Product((a, b)), Product((b, a)), REASON)
    assert not free_axes(solver, a)
    assert solver.reason(solver.normal(b)) == REASON


def test_unequal_sizes_are_protected() -> None:
    solver, a, b = Solver(), Axis(2), Axis(3)
    solver.unify(a, b, REASON)
    assert solver.is_kept(a)
    assert solver.is_kept(b)


def test_protection_spreads_with_its_reason() -> None:
    solver, a, b = Solver(), Axis(6), Axis(6)
    first = Reason("looked up", "embed")
    solver.protect(a, first)
    solver.unify(a, b, REASON)
    assert solver.is_kept(b)
    assert solver.reason(b) == first
    outer, inner = solver.factor(b, 3) or (UNIT, UNIT)
    assert {solver.reason(outer), solver.reason(inner)} == {first}


def test_neighbouring_protected_axes_of_a_sum_are_one() -> None:
    """Else 1+1 would stop a chunk from cutting between them."""
    solver, a, b = Solver(), Axis(2), Axis(3)
    solver.protect(Sum((a, b)), REASON)
    merged = solver.normal(Sum((a, b)))
    assert isinstance(merged, Axis)
    assert solver.is_kept(merged)
    assert solver.cut(merged, 4) is not None


@pytest.mark.parametrize("number", [-1, 0, 7])
def test_impossible_parts_are_none(number: int) -> None:
    solver, dim = Solver(), Axis(6)
    assert number == 0 or solver.cut(dim, number) is None
    assert solver.factor(dim, number) is None


def test_empty_and_single_dimensions_vanish() -> None:
    solver, axis = Solver(), Axis(4)
    assert solver.normal(Sum((EMPTY, axis, Axis(0)))) is axis
    assert solver.normal(Product((UNIT, axis, Axis(1)))) is axis
    assert solver.normal(Sum((EMPTY,))).size == 0
    assert solver.normal(Product(())).size == 1


# -- reading expressions -------------------------------------------------------------------------


def masks_of(axes: Sequence[Axis]) -> Iterator[dict[Axis, np.ndarray]]:
    """Every choice of kept indices, the one that keeps nothing too."""
    for kept in itertools.product(*(itertools.product([True, False], repeat=a.size) for a in axes)):
        yield dict(zip(axes, map(np.array, kept), strict=True))


@pytest.mark.parametrize("size", range(1, 7))
def test_masks_and_sizes_of_every_choice(size: int) -> None:
    for dim in shared_expressions(size):
        axes = list(dict.fromkeys(a for a in leaves(dim) if a.size > 1))
        twice = set(repeated_in_product(dim))
        for keep in masks_of(axes):
            lost = [
                any(axis in keep and not keep[axis][i] for axis, i in atoms)
                for atoms in positions(dim)
            ]
            assert (~keep_mask(dim, keep)).tolist() == lost
            if not twice:
                sizes = {axis: int(mask.sum()) for axis, mask in keep.items()}
                assert size_after(dim, sizes) == lost.count(False)


@given(st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_dropping_a_then_b_is_dropping_both(data: st.DataObject) -> None:
    dim = build(data.draw(expressions(data.draw(st.sampled_from([12, 24, 36])))))
    axes = list(leaves(dim))
    keeps = [
        {
            a: np.array(data.draw(st.lists(st.booleans(), min_size=a.size, max_size=a.size)))
            for a in axes
        }
        for _ in range(2)
    ]
    both = {a: keeps[0][a] & keeps[1][a] for a in axes}
    once = keep_mask(dim, both)
    assert (once == (keep_mask(dim, keeps[0]) & keep_mask(dim, keeps[1]))).all()


@pytest.mark.parametrize("size", range(1, 8))
def test_coordinates_against_a_loop(size: int) -> None:
    for dim in shared_expressions(size):
        twice = set(repeated_in_product(dim))
        for axis in {*leaves(dim), Axis(3)} - twice:
            slow = [next((i for a, i in atoms if a is axis), -1) for atoms in positions(dim)]
            assert coordinates(dim, axis).tolist() == slow


@pytest.mark.parametrize("size", range(1, 9))
def test_axes_that_stand_twice_in_a_product(size: int) -> None:
    for dim in shared_expressions(size):
        slow = {
            axis
            for atoms in positions(dim)
            for axis, _ in atoms
            if sum(a is axis for a, _ in atoms) > 1
        }
        assert set(repeated_in_product(dim)) == slow
