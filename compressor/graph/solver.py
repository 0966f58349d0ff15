"""Solve equations between dimensions by substitution.

An equation `d = e` means that both dimensions lose the same positions. What cannot be solved is
protected: those axes keep every index. Each step is a consequence of the equations or a protection,
so a result can be incomplete, never wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from compressor.graph.axes import EMPTY, UNIT, Axis, Dim, Product, Sum, by_inner_size, leaves, same


@dataclass(frozen=True)
class Reason:
    """Why an axis keeps all its indices, and the place (layer, source line) that asks for it."""

    text: str
    place: str = ""


TRIVIAL = Reason("has a single index")
SINGLES = Reason("its indices are used one by one")


@dataclass
class Solver:
    """A set of equations between dimensions, each solved by substitution as it is added.

    The solver knows what each axis is bound to, and which axes are protected and why.
    """

    _bound: dict[Axis, Dim] = field(default_factory=dict)
    _kept: dict[Axis, Reason] = field(default_factory=dict)

    # -- reading the solution -------------------------------------------------------------------

    def normal(self, dim: Dim) -> Dim:
        """Return the solved form of a dimension.

        Bound axes are substituted, nested products and sums flattened, parts of size one (in
        products) or zero (in sums) dropped, and neighbouring protected axes merged into one.
        """
        if isinstance(dim, Axis):
            if dim not in self._bound:
                return UNIT if dim.size == 1 else dim
            solved = self.normal(self._bound[dim])
            self._bound[dim] = solved
            return solved
        parts = self._flat_parts(dim)
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return UNIT if isinstance(dim, Product) else EMPTY
        return type(dim)(tuple(parts))

    def _flat_parts(self, dim: Product | Sum) -> list[Dim]:
        kind, neutral = type(dim), 1 if isinstance(dim, Product) else 0
        parts: list[Dim] = []
        for part in map(self.normal, dim.parts):
            for piece in part.parts if isinstance(part, kind) else (part,):
                if piece.size == neutral:
                    continue
                before = parts[-1] if parts else None
                if before is not None and self.is_kept(before) and self.is_kept(piece):
                    merged = Axis(kind((before, piece)).size)
                    reasons = [self.reason(d) for d in (before, piece)]
                    self._kept[merged] = next((r for r in reasons if r != TRIVIAL), SINGLES)
                    parts[-1] = merged
                else:
                    parts.append(piece)
        return parts

    def is_kept(self, dim: Dim) -> bool:
        """Return whether a dimension in normal form is one protected axis."""
        return isinstance(dim, Axis) and (dim.size <= 1 or dim in self._kept)

    def reason(self, dim: Dim) -> Reason:
        """Return why an axis is protected; TRIVIAL for what is not recorded as protected."""
        return self._kept.get(dim, TRIVIAL) if isinstance(dim, Axis) else TRIVIAL

    # -- equations ------------------------------------------------------------------------------

    def protect(self, dim: Dim, reason: Reason) -> None:
        """Protect every axis in `dim`: it keeps all its indices, for this reason."""
        for axis in leaves(self.normal(dim)):
            if not self.is_kept(axis):
                self._kept[axis] = reason

    def unify(self, left: Dim, right: Dim, reason: Reason) -> None:
        """Add the equation `left = right`: both dimensions lose the same positions.

        What cannot be solved is protected with `reason`.
        """
        left, right = self.normal(left), self.normal(right)
        if same(left, right):
            return
        if left.size != right.size:
            self._give_up(left, right, reason)
        elif self.is_kept(left):
            self.protect(right, self.reason(left))
        elif self.is_kept(right):
            self.protect(left, self.reason(right))
        elif isinstance(left, Axis):
            self._bind(left, right, reason)
        elif isinstance(right, Axis):
            self._bind(right, left, reason)
        elif isinstance(left, Sum) and isinstance(right, Sum):
            self._unify_sums(left, right, reason)
        else:
            self._unify_products(left, right, reason)

    def _bind(self, axis: Axis, dim: Dim, reason: Reason) -> None:
        if any(leaf is axis for leaf in leaves(dim)):
            self.protect(dim, reason)
        else:
            self._bound[axis] = dim

    def _unify_sums(self, left: Sum, right: Sum, reason: Reason) -> None:
        at = min(left.parts[0].size, right.parts[0].size)
        ours, theirs = self.cut(left, at), self.cut(right, at)
        if ours is None or theirs is None:
            self._give_up(left, right, reason)
            return
        for mine, yours in zip(ours, theirs, strict=True):
            self.unify(mine, yours, reason)

    def _unify_products(self, left: Dim, right: Dim, reason: Reason) -> None:
        """Unify two dimensions of which at least one is a product.

        The smaller of the innermost parts is split off both sides, and the two pieces are unified.
        """
        inner = min(d.parts[-1].size for d in (left, right) if isinstance(d, Product))
        ours, theirs = self.factor(left, inner), self.factor(right, inner)
        if ours is None or theirs is None:
            self._give_up_inside(left, right, reason)
            return
        for mine, yours in zip(ours, theirs, strict=True):
            self.unify(mine, yours, reason)

    def _give_up_inside(self, left: Dim, right: Dim, reason: Reason) -> None:
        """Protect the inner parts up to where both layouts meet again, and unify the outer ones."""
        ours, theirs = by_inner_size(left), by_inner_size(right)
        meeting = min(ours.keys() & theirs.keys())
        (left, mine), (right, yours) = ours[meeting], theirs[meeting]
        self._give_up(mine, yours, reason)
        self.unify(left, right, reason)

    def _give_up(self, left: Dim, right: Dim, reason: Reason) -> None:
        self.protect(left, reason)
        self.protect(right, reason)

    # -- taking dimensions apart ----------------------------------------------------------------

    def factor(self, dim: Dim, inner: int) -> tuple[Dim, Dim] | None:
        """Write `dim` as (outer, inner) where inner has this size; None where that is impossible.

        This may substitute axes and unify parts of `dim`.
        """
        dim = self.normal(dim)
        if inner < 1 or dim.size % inner:
            return None
        outer = dim.size // inner
        if outer == 1:
            return UNIT, dim
        if inner == 1:
            return dim, UNIT
        if isinstance(dim, Axis):
            return self._replace(dim, Product, outer, inner)
        if isinstance(dim, Product):
            return self._factor_product(dim, inner)
        return self._factor_terms(dim, inner) or self._factor_chunks(dim, inner)

    def _factor_product(self, dim: Product, inner: int) -> tuple[Dim, Dim] | None:
        rest, last = Product(dim.parts[:-1]), dim.parts[-1]
        if inner % last.size == 0:
            split = self.factor(rest, inner // last.size)
            return split and (split[0], Product((split[1], last)))
        split = self.factor(last, inner)
        return split and (Product((rest, split[0])), split[1])

    def _factor_terms(self, dim: Sum, inner: int) -> tuple[Dim, Dim] | None:
        """Factor a sum whose terms divide by the inner size: x + y + ... = (x' + y' + ...) * r."""
        if any(part.size % inner for part in dim.parts):
            return None
        outers: list[Dim] = []
        shared: Dim = Axis(inner)
        for part in dim.parts:
            split = self.factor(part, inner)
            if split is None:
                return None
            outers.append(split[0])
            self.unify(shared, split[1], Reason("the parts of a concatenation are reshaped as one"))
        return Sum(tuple(outers)), shared

    def _factor_chunks(self, dim: Sum, inner: int) -> tuple[Dim, Dim] | None:
        """Factor a sum of k equal chunks as (k, protected) * chunk, with the chunks unified."""
        reason = Reason("equal chunks of a concatenation are reshaped as one")
        chunk: Dim = Axis(inner)
        rest: Dim = dim
        for _ in range(dim.size // inner - 1):
            split = self.cut(rest, inner)
            if split is None:
                return None
            self.unify(chunk, split[0], reason)
            rest = split[1]
        self.unify(chunk, rest, reason)
        outer = Axis(dim.size // inner)
        self._kept[outer] = reason
        return outer, chunk

    def cut(self, dim: Dim, at: int) -> tuple[Dim, Dim] | None:
        """Write `dim` as (first `at` positions, rest); return None where that is impossible.

        This may substitute axes of `dim`.
        """
        dim = self.normal(dim)
        if not 0 <= at <= dim.size:
            return None
        if at == 0:
            return EMPTY, dim
        if at == dim.size:
            return dim, EMPTY
        if isinstance(dim, Axis):
            return self._replace(dim, Sum, at, dim.size - at)
        head, rest = dim.parts[0], dim.parts[1:]
        if isinstance(dim, Product):
            inner = Product(rest)
            split = self.cut(head, at // inner.size) if at % inner.size == 0 else None
            return split and (Product((split[0], inner)), Product((split[1], inner)))
        if at >= head.size:
            split = self.cut(Sum(rest), at - head.size)
            return split and (Sum((head, split[0])), split[1])
        split = self.cut(head, at)
        return split and (split[0], Sum((split[1], *rest)))

    def _replace(
        self, axis: Axis, kind: type[Product] | type[Sum], first: int, second: int
    ) -> tuple[Axis, Axis]:
        """Substitute an axis by two fresh ones; the parts of a protected axis are protected."""
        parts = Axis(first), Axis(second)
        if self.is_kept(axis):
            self._kept.update(dict.fromkeys(parts, self.reason(axis)))
        else:
            self._bound[axis] = kind(parts)
        return parts
