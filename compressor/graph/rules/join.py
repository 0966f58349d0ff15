"""Give the equations of joining and cutting: a dimension is the sum of its pieces."""

from __future__ import annotations

from collections.abc import Sequence

from compressor.graph.axes import UNIT, Axis, Dim, Product, Sum
from compressor.graph.rules.call import (
    Call,
    Equations,
    Rule,
    Shape,
    fresh,
    keep_all,
    same_where_sized,
    table,
)
from compressor.graph.rules.reasons import INDEXED, OVERWRITTEN, STACKED, STEP, STRIDED, TAKEN


def cat(call: Call) -> Equations:
    """cat: out[dim] = the sum of the operands' [dim]; the other dimensions are the same."""
    shapes = [s for s in call["tensors"] if len(s) == len(call.outputs[0])]
    return _join(shapes, call.dim("dim", 0, rank=len(call.outputs[0])))


def side_by_side(call: Call) -> Equations:
    """hstack: cat along the second dimension, of vectors along the only one."""
    shapes = call["tensors"]
    return _join(shapes, min(1, len(shapes[0]) - 1))


def rows(call: Call) -> Equations:
    """vstack: cat along the first dimension, vectors being rows."""
    return _join([s if len(s) > 1 else (UNIT, *s) for s in call["tensors"]], 0)


def columns(call: Call) -> Equations:
    """column_stack: cat along the second dimension, vectors being columns."""
    return _join([s if len(s) > 1 else (*s, UNIT) for s in call["tensors"]], 1)


def _join(shapes: Sequence[Shape], at: int) -> Equations:
    first = shapes[0]
    same = [
        pair
        for shape in shapes[1:]
        for i, pair in enumerate(zip(first, shape, strict=True))
        if i != at
    ]
    return Equations(((*first[:at], Sum(tuple(s[at] for s in shapes)), *first[at + 1 :]),), same)


def stack(call: Call) -> Equations:
    """stack: a new dimension counts the operands and is kept; the others are the same."""
    shapes = call["tensors"]
    at = call.dim("dim", 0, rank=len(call.outputs[0]))
    count = Axis(len(shapes))
    first = shapes[0]
    same = [pair for shape in shapes[1:] for pair in zip(first, shape, strict=True)]
    return Equations(((*first[:at], count, *first[at:]),), same, keep=[(count, STACKED)])


def split(call: Call) -> Equations:
    """split: x[dim] = the sum of the pieces; unequal pieces need their sizes spelled out."""
    return _split(call, call.dim("dim", 0))


def split_across(call: Call) -> Equations:
    """hsplit: split along the second dimension, of vectors along the only one."""
    return _split(call, min(1, len(call.x) - 1))


def _split(call: Call, at: int) -> Equations:
    x = call.x
    if not all(0 <= sizes[at] <= x[at].size for sizes in call.outputs):
        return _by_data(call, at)
    pieces: tuple[Dim, ...] = tuple(Axis(sizes[at]) for sizes in call.outputs)
    return Equations(
        tuple((*x[:at], piece, *x[at + 1 :]) for piece in pieces),
        [(x[at], Sum(pieces))],
        equal=pieces if len({piece.size for piece in pieces}) == 1 else (),
        literals={"split_sizes": pieces, "dim": at},
        target="aten.split_with_sizes.default",
    )


def cut(call: Call) -> Equations:
    """slice: x[dim] = before + out + after for step 1, out * step for a stride over the whole."""
    at = call.dim("dim", 0)
    x, size = call.x, call.x[call.dim("dim", 0)].size
    start, end = _bounds(call, size)
    step = call.get("step", 1)
    is_known = end <= size and (step != 1 or max(0, end - start) == call.outputs[0][at])
    if not is_known or abs(call.get("start", 0)) > max(size, end):
        return _by_data(call, at)
    if step == 1 and (start, end) == (0, size):
        return Equations((x,))
    if step == 1:
        before, out, after = Axis(start), Axis(max(0, end - start)), Axis(size - max(start, end))
        return Equations(
            ((*x[:at], out, *x[at + 1 :]),),
            [(x[at], Sum((before, out, after)))],
            literals={"start": before, "end": Sum((before, out))},
        )
    return _strided(call, at, start, step)


def _by_data(call: Call, at: int) -> Equations:
    """Data say where it is cut: x[dim] and what is left of it are kept, the others pass."""
    x, left = call.x, fresh(sizes[at] for sizes in call.outputs)
    outputs = tuple((*x[:at], piece, *x[at + 1 :]) for piece in left)
    return Equations(outputs, keep=keep_all((x[at], *left), INDEXED))


def _strided(call: Call, at: int, start: int, step: int) -> Equations:
    """Strided slice: x[dim] = out*step if it covers the whole, else before + out*step + after.

    A slice that covers the whole may start anywhere within the first step.
    """
    x, size = call.x, call.x[at].size
    result, stride = Axis(call.outputs[0][at]), Axis(step)
    taken, left = Product((result, stride)), size - start - result.size * step
    output = (*x[:at], result, *x[at + 1 :])
    keep = [(stride, STEP)]
    if taken.size == size and start < step:
        return Equations((output,), [(x[at], taken)], keep)
    if left >= 0:
        before = Axis(start)
        literals = {"start": before, "end": Sum((before, taken))}
        return Equations(
            (output,), [(x[at], Sum((before, taken, Axis(left))))], keep, literals=literals
        )
    return Equations((output,), keep=keep_all((x[at], result), STRIDED))


def _bounds(call: Call, size: int) -> tuple[int, int]:
    start, end = call.get("start", 0), call.get("end", size)
    if "length" in call.arguments:
        start = start % size if size else 0
        return start, start + call["length"]
    return min(start + size * (start < 0), size), min(end + size * (end < 0), size)


def glu(call: Call) -> Equations:
    """GLU: x[dim] = a + a; the second half gates the first."""
    at = call.dim("dim", -1)
    half = Axis(call.outputs[0][at])
    return Equations(((*call.x[:at], half, *call.x[at + 1 :]),), [(call.x[at], Sum((half, half)))])


def narrow(call: Call) -> Equations:
    """narrow: x[dim] = before + out + after; the length is spelled instead of the end."""
    equations = cut(call)
    if not equations.literals:
        return equations
    out: Shape = equations.outputs[0]
    return Equations(
        equations.outputs,
        equations.same,
        literals={"start": equations.literals["start"], "length": out[call.dim()]},
    )


def select(call: Call) -> Equations:
    """select and unbind: single indices are taken out of x[dim], which is kept."""
    at = call.dim("dim", 0)
    rest = call.x[:at] + call.x[at + 1 :]
    return Equations(tuple(tuple(rest) for _ in call.outputs), keep=[(call.x[at], TAKEN)])


def slice_scatter(call: Call) -> Equations:
    """slice_scatter, select_scatter: out = x; the source agrees except at `dim`, which is kept."""
    at = call.dim("dim", 0)
    x, source = call.x, call["src"]
    whole = len(source) == len(x)
    rest = source[:at] + source[at + 1 :] if whole else source
    return Equations(
        (x,),
        same_where_sized(x[:at] + x[at + 1 :], rest),
        keep=keep_all((x[at], *source[at : at + whole]), OVERWRITTEN),
    )


RULES: dict[str, Rule] = {
    **table(cat, "cat concat concatenate"),
    **table(side_by_side, "hstack"),
    **table(rows, "vstack row_stack"),
    **table(columns, "column_stack"),
    **table(stack, "stack"),
    **table(
        split,
        """split.Tensor split.sizes split_with_sizes chunk unsafe_chunk tensor_split.sections
        tensor_split.indices unsafe_split.Tensor unsafe_split_with_sizes vsplit.int
        vsplit.array""",
    ),
    **table(split_across, "hsplit.int hsplit.array"),
    **table(cut, "slice.Tensor slice_copy.Tensor"),
    **table(glu, "glu"),
    **table(narrow, "narrow"),
    **table(select, "select.int unbind.int"),
    **table(slice_scatter, "slice_scatter select_scatter"),
}
