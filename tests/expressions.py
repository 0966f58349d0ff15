"""Every small expression over axes, and what an expression means in plain Python sets: a position
is the set of (axis, index) atoms it stands on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import cache

from hypothesis import strategies as st

from compressor.graph.axes import Axis, Dim, Product, Sum, leaves

Atoms = frozenset[tuple[Axis, int]]
Spec = int | tuple[str, tuple["Spec", ...]]
"""An expression before it has axes: a size, or ("+" or "*", parts)."""


def positions(dim: Dim) -> list[Atoms]:
    """Per position of an expression the atoms it stands on, by loops alone."""
    if isinstance(dim, Axis):
        return [frozenset({(dim, i)}) for i in range(dim.size)]
    parts = [positions(part) for part in dim.parts]
    if isinstance(dim, Sum):
        return [atoms for part in parts for atoms in part]
    return [frozenset().union(*chosen) for chosen in itertools.product(*parts)]


@cache
def specs(size: int, outermost: str = "") -> tuple[Spec, ...]:
    """Every expression of a size, but for those whose outermost operation is the named one."""
    found: list[Spec] = [size]
    for kind in "+*":
        if kind != outermost:
            for sizes in splits(size, kind):
                parts = itertools.product(*(specs(s, kind) for s in sizes))
                found += [(kind, chosen) for chosen in parts]
    return tuple(found)


def splits(size: int, kind: str) -> Iterator[tuple[int, ...]]:
    """Ordered ways to write a size as two or more terms (of at least 1) or factors (at least 2)."""
    for first in _firsts(size, kind):
        rest = size - first if kind == "+" else size // first
        yield (first, rest)
        yield from ((first, *more) for more in splits(rest, kind))


def _firsts(size: int, kind: str) -> list[int]:
    return [n for n in range(1 if kind == "+" else 2, size) if kind == "+" or size % n == 0]


def build(spec: Spec, axis: Callable[[int], Axis] = Axis) -> Dim:
    if isinstance(spec, int):
        return axis(spec)
    kind, parts = spec
    return {"+": Sum, "*": Product}[kind](tuple(build(part, axis) for part in parts))


def sizes_in(spec: Spec) -> list[int]:
    """The sizes of an expression's axes, without the ones."""
    return [leaf.size for leaf in leaves(build(spec)) if leaf.size > 1]


def sharings(sizes: Sequence[int]) -> Iterator[list[Axis]]:
    """Every way in which places of these sizes can share axes."""
    if not sizes:
        yield []
        return
    for axes in sharings(sizes[:-1]):
        yield [*axes, Axis(sizes[-1])]
        for old in dict.fromkeys(axes):
            if old.size == sizes[-1]:
                yield [*axes, old]


def filled(spec: Spec, axes: Iterator[Axis]) -> Dim:
    return build(spec, lambda size: Axis(1) if size == 1 else next(axes))


def shared_expressions(size: int) -> Iterator[Dim]:
    for spec in specs(size):
        for axes in sharings(sizes_in(spec)):
            yield filled(spec, iter(axes))


def expressions(size: int, outermost: str = "") -> st.SearchStrategy[Spec]:
    """Random expressions of a size."""
    options: list[st.SearchStrategy[Spec]] = [st.just(size)]
    for kind in "+*":
        firsts = _firsts(size, kind)
        if kind != outermost and firsts:
            options.append(st.sampled_from(firsts).flatmap(lambda f, k=kind: _joined(size, f, k)))
    return st.one_of(options)


def _joined(size: int, first: int, kind: str) -> st.SearchStrategy[Spec]:
    rest = size - first if kind == "+" else size // first
    parts = st.tuples(expressions(first, kind), expressions(rest, kind))
    return parts.map(lambda chosen: (kind, chosen))
