"""Define what a rule sees of an operator's call, and what it says: plain data, no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from compressor.graph.axes import UNIT, Axis, Dim

Shape = tuple[Dim, ...]
"""The dimensions of one tensor."""


def is_shape(value: Any) -> bool:
    """Return whether an argument is a tensor, that is, a tuple of dimensions."""
    return isinstance(value, TensorShape)


class TensorShape(tuple[Dim, ...]):
    """A `Shape` that stands for a tensor argument (a plain tuple is a list of numbers)."""

    __slots__ = ()


Says = Literal["position", "count", "end"]
"""What a number says of positions along a dimension: which one it is, how many things are at each,
or where those of each end once they are sorted by position."""


@dataclass(frozen=True)
class Meaning:
    """What the numbers in a tensor say of a dimension, which may be one of other tensors.

    Attributes:
        says: What each of them is.
        of: The dimension.
    """

    says: Says
    of: Dim


@dataclass(frozen=True)
class Routing:
    """What an operator has to do with a mixture of experts, of which data choose some for each row.

    Attributes:
        competing: Dimensions among those to keep that may lose positions all the same, where they
            turn out to be experts: what is left is then what the operator would give if the others
            were never chosen.
        chosen: How many positions are chosen along what competes.
        stacked: Dimensions of weights along which data choose.
        aligned: Dimensions whose sizes kernels take in multiples of eight alone.
        meanings: What the numbers in each result say of positions.
    """

    competing: tuple[Dim, ...] = ()
    chosen: int = 0
    stacked: tuple[Dim, ...] = ()
    aligned: tuple[Dim, ...] = ()
    meanings: tuple[Meaning | None, ...] = ()


@dataclass(frozen=True)
class Call:
    """One call of an operator, as a rule sees it.

    Attributes:
        op: Name of the overload.
        arguments: Every argument of the schema by name: tensors as `TensorShape`, lists of tensors
            as tuples of them, symbolic sizes as numbers.
        outputs: The sizes of the results.
        read: Position of a result -> the indices of its first dimension that something reads;
            results that are not in it are read as a whole.
        blank: Names of tensor arguments that hold the same number everywhere; "hx.1" is the second
            of a list.
        meanings: Names of tensor arguments whose numbers say positions -> what of which dimension.
    """

    op: str
    arguments: Mapping[str, Any]
    outputs: tuple[tuple[int, ...], ...]
    read: Mapping[int, frozenset[int]] = field(default_factory=dict)
    blank: frozenset[str] = frozenset()
    meanings: Mapping[str, Meaning] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def shape(self, argument: str) -> Shape:
        """Return a tensor argument by name; "tensors.1" is the second of a list."""
        name, _, position = argument.partition(".")
        shape: Shape = self[name][int(position)] if position else self[name]
        return shape

    def get(self, name: str, default: Any = None) -> Any:
        """Return an argument, or the default where it is None or the overload lacks it."""
        value = self.arguments.get(name)
        return default if value is None else value

    @property
    def tensors(self) -> Iterator[TensorShape]:
        """Yield all tensor arguments in order, those in lists too."""
        for value in self.arguments.values():
            candidates = value if isinstance(value, tuple) and not is_shape(value) else (value,)
            yield from (v for v in candidates if is_shape(v))

    @property
    def x(self) -> TensorShape:
        """Return the first tensor argument."""
        return next(self.tensors)

    def dim(self, name: str = "dim", default: Any = None, rank: int | None = None) -> int:
        """Return a dimension argument, counted from the front; `rank` is that of `x` by default."""
        value = self.get(name, default)
        return int(value) % (len(self.x) if rank is None else rank)


@dataclass(frozen=True)
class Equations:
    """What an operator says about the dimensions of its tensors.

    Attributes:
        outputs: The dimensions of each result.
        same: Pairs of dimensions that lose the same positions.
        keep: Dimensions that lose nothing, with the reason.
        equal: Dimensions that user code takes to be of one size (the halves of a chunk).
        level: Sets of dimensions that the operator wants to be of one size; each may lose positions
            of its own.
        remark: What the user should know of how its dimensions depend on each other; "" is nothing.
        statistics: Dimensions over which a statistic is taken (a norm's mean and variance).
        routing: What it has to do with experts that data choose. Without it, whatever its arguments
            say positions of keeps them all.
        heads, head_width: For a product of two activations: the dimensions over which it is
            repeated, and those that it contracts or carries (ignored where one side is weights).
        contracted: (argument, dimension) of the weights that are summed over.
        macs: Products of dimensions; their sizes' sum is the number of multiply-adds.
        width: The channels that the layer produces, where it has weights.
        literals: Argument -> the dimension whose size it spells (or a tuple of such).
        target: Overload that takes `literals` instead once a result shrinks, because this one
            cannot spell every size.
        pins: Argument -> (value, dimension): the value that it must be given once the dimension
            has another size, because it is computed from that size; a dimension as the value stands
            for its own size.
        keeps_zeros: Whether zeros in any operand are zeros in the results, so that zeros in a
            parameter are zeros in what is computed from it.
    """

    outputs: tuple[Shape, ...] = ()
    same: Iterable[tuple[Dim, Dim]] = ()
    keep: Iterable[tuple[Dim, str]] = ()
    equal: tuple[Dim, ...] = ()
    level: Iterable[tuple[Dim, ...]] = ()
    remark: str = ""
    statistics: Iterable[Dim] = ()
    routing: Routing | None = None
    heads: Iterable[Dim] = ()
    head_width: Iterable[Dim] = ()
    contracted: Iterable[tuple[str, int]] = ()
    macs: Iterable[tuple[Dim, ...]] = ()
    width: Dim | None = None
    literals: Mapping[str, Any] = field(default_factory=dict)
    target: str = ""
    pins: Mapping[str, tuple[Any, Dim]] = field(default_factory=dict)
    keeps_zeros: bool = False


Rule = Callable[[Call], Equations]


def fresh(sizes: Iterable[int]) -> tuple[Dim, ...]:
    """Return one new axis per size."""
    return tuple(UNIT if size == 1 else Axis(size) for size in sizes)


def keep_all(dims: Iterable[Dim], reason: str) -> list[tuple[Dim, str]]:
    """Pair several dimensions with the same reason to keep them."""
    return [(dim, reason) for dim in dims]


@dataclass(frozen=True)
class Refusal:
    """The rule of an operator that cannot be followed: everything it touches is kept."""

    reason: str

    def __call__(self, call: Call) -> Equations:
        outputs = tuple(fresh(sizes) for sizes in call.outputs)
        touched = [dim for shape in (*call.tensors, *outputs) for dim in shape]
        return Equations(outputs, keep=keep_all(touched, self.reason))


def same_where_sized(left: Iterable[Dim], right: Iterable[Dim]) -> list[tuple[Dim, Dim]]:
    """Pair up dimensions, aligned at the last, without those that are broadcast."""
    pairs = zip(reversed(tuple(left)), reversed(tuple(right)), strict=False)
    return [(a, b) for a, b in pairs if a.size == b.size and a.size != 1]


def broadcast(shapes: Iterable[Shape], sizes: tuple[int, ...]) -> Equations:
    """Broadcasting: out[i] = each operand's dimension i from the last; size 1 is stretched."""
    outputs: list[Dim] = list(fresh(sizes))
    taken = [False] * len(sizes)
    same: list[tuple[Dim, Dim]] = []
    for shape in shapes:
        for offset, dim in enumerate(reversed(shape), 1):
            at = len(sizes) - offset
            if dim.size == 1 or dim.size != sizes[at]:
                continue
            if taken[at]:
                same.append((outputs[at], dim))
            else:
                outputs[at], taken[at] = dim, True
    return Equations((tuple(outputs),), same)


def table(rule: Rule, names: str) -> dict[str, Rule]:
    """Return the same rule for several overloads; a bare name stands for its `default` overload."""
    return {name if "." in name else f"{name}.default": rule for name in names.split()}
