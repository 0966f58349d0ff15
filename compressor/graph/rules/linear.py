"""Give the equations of linear layers and matrix products.

One dimension is contracted, the others pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from compressor.graph.axes import Axis, Dim
from compressor.graph.rules.call import (
    Call,
    Equations,
    Rule,
    Shape,
    broadcast,
    fresh,
    keep_all,
    same_where_sized,
    table,
)
from compressor.graph.rules.reasons import COORDINATES


def linear(call: Call) -> Equations:
    """Linear layer: out[..., o] = x[..., i] weight[o, i] + bias[o]."""
    x, weight = call["input"], call["weight"]
    out = Axis(weight[0].size) if len(weight) == 2 else None
    same: list[tuple[Dim, Dim]] = [(x[-1], weight[-1])]
    lead = x[:-1]
    if out is None:
        return Equations((lead,), same, contracted=(("weight", 0),), macs=((*lead, x[-1]),))
    same += [(out, weight[0])] + [(out, bias[0]) for bias in [call.get("bias")] if bias]
    return Equations(
        ((*lead, out),),
        same,
        contracted=(("weight", 1),),
        macs=((*lead, x[-1], out),),
        width=out,
    )


def _product(left: Shape, right: Shape, batch: tuple[int, ...]) -> Equations:
    """Matrix product: out[..., m, n] = left[..., m, k] right[..., k, n].

    The leading dimensions broadcast to the sizes `batch`.
    """
    lead = broadcast((left[:-2], right[:-2]), batch)
    m, k, n = left[-2], left[-1], right[-1]
    return Equations(
        ((*lead.outputs[0], m, n),),
        [*lead.same, (k, right[-2])],
        macs=((*lead.outputs[0], m, k, n),),
        width=n,
    )


def matmul(call: Call) -> Equations:
    """matmul: out[..., m, n] = left[..., m, k] right[..., k, n].

    Vectors are lifted to matrices for the product; their dimension is then dropped again.
    """
    names = tuple(call.arguments)[:2]
    left, right = (tuple(call[name]) for name in names)
    one: Shape = fresh([1])
    a, b = (one + left if len(left) == 1 else left), (right + one if len(right) == 1 else right)
    rank = max(len(a), len(b))
    sizes = call.outputs[0]
    product = _product(a, b, sizes[: rank - 2])
    result = product.outputs[0]
    if len(left) == 1:
        result = result[:-2] + result[-1:]
    if len(right) == 1:
        result = result[:-1]
    return Equations(
        (result,),
        product.same,
        heads=product.outputs[0][:-2],
        head_width=() if len(left) < 2 or len(right) < 2 else (left[-1], right[-1]),
        contracted=((names[0], len(left) - 1), (names[1], max(0, len(right) - 2))),
        macs=product.macs,
        width=product.width,
    )


def addmm(call: Call) -> Equations:
    """addmm, baddbmm: out[..., m, n] = self + mat1[..., m, k] mat2[..., k, n]."""
    left_name = "mat1" if "mat1" in call.arguments else "batch1"
    right_name = "mat2" if "mat2" in call.arguments else "batch2"
    left, right = call[left_name], call[right_name]
    product = _product(left, right, call.outputs[0][:-2])
    return Equations(
        product.outputs,
        [*product.same, *same_where_sized(call["self"], product.outputs[0])],
        contracted=((left_name, len(left) - 1), (right_name, len(right) - 2)),
        macs=product.macs,
        width=product.width,
    )


def addmv(call: Call) -> Equations:
    """addmv: out[m] = self[m] + mat[m, k] vec[k]."""
    (m, k), vec = call["mat"], call["vec"]
    return Equations(
        ((m,),),
        [(k, vec[0]), *same_where_sized(call["self"], (m,))],
        contracted=(("mat", 1), ("vec", 0)),
        macs=((m, k),),
        width=m,
    )


def addbmm(call: Call) -> Equations:
    """addbmm: out[m, n] = self[m, n] + sum over b of batch1[b, m, k] batch2[b, k, n]."""
    (b, m, k), right = call["batch1"], call["batch2"]
    return Equations(
        ((m, right[2]),),
        [(b, right[0]), (k, right[1]), *same_where_sized(call["self"], (m, right[2]))],
        contracted=[("batch1", 0), ("batch1", 2), ("batch2", 0), ("batch2", 1)],
        head_width=(b, k),
        macs=((b, m, k, right[2]),),
        width=right[2],
    )


def inner(call: Call) -> Equations:
    """inner: out[..., ...] = self[..., k] other[..., k], leading dimensions in order."""
    left, right = call["self"], call["other"]
    if not left or not right:  # a number times a tensor
        return broadcast((left, right), call.outputs[0])
    return Equations(
        ((*left[:-1], *right[:-1]),),
        [(left[-1], right[-1])],
        head_width=(left[-1], *right[:-1]),
        contracted=(("self", len(left) - 1), ("other", len(right) - 1)),
        macs=((*left, *right[:-1]),),
        width=right[0] if len(right) > 1 else None,
    )


def outer(call: Call) -> Equations:
    """outer, addr: out[m, n] = a[m] b[n], plus what it is added to."""
    names = ("vec1", "vec2") if "vec1" in call.arguments else ("self", "vec2")
    m, n = (call[name][0] for name in names)
    added = call["self"] if "vec1" in call.arguments else ()
    return Equations(((m, n),), same_where_sized(added, (m, n)))


def distances(call: Call) -> Equations:
    """cdist: out[..., p, r] = |x1[..., p, m] - x2[..., r, m]|; m is summed on both sides."""
    left, right = call["x1"], call["x2"]
    lead = broadcast((left[:-2], right[:-2]), call.outputs[0][:-2])
    same = [*lead.same, (left[-1], right[-1])]
    return Equations(((*lead.outputs[0], left[-2], right[-2]),), same, statistics=(left[-1],))


def cross(call: Call) -> Equations:
    """The vector product along a dimension of three, which is kept; the others are broadcast."""
    sizes = call.outputs[0]
    joined = broadcast((call["self"], call["other"]), sizes)
    is_old = call.op.startswith("cross.") and call.get("dim") is None
    at = sizes.index(3) if is_old else call.dim("dim", -1, rank=len(sizes))
    kept = [joined.outputs[0][at]]
    return Equations(joined.outputs, joined.same, keep=keep_all(kept, COORDINATES))


def einsum(call: Call) -> Equations:
    """einsum: every letter is one dimension; letters that the result lacks are contracted."""
    operands = call["tensors"]
    terms, result = einsum_letters(call["equation"], [len(shape) for shape in operands])
    by_letter: dict[str, Dim] = {}
    same: list[tuple[Dim, Dim]] = []
    for term, shape in zip(terms, operands, strict=True):
        for letter, dim in zip(term, shape, strict=True):
            first = by_letter.setdefault(letter, dim)
            if first.size == 1:
                by_letter[letter] = dim
            elif dim is not first and dim.size == first.size:
                same.append((first, dim))
    outputs = tuple(by_letter[letter] for letter in result)
    batched = [letter for letter in result if all(letter in term for term in terms)]
    several = len(operands) > 1
    return Equations(
        (outputs,),
        same,
        heads=[by_letter[letter] for letter in batched] if several else (),
        head_width=[d for x, d in by_letter.items() if x not in batched] if several else (),
        contracted=[
            (f"tensors.{i}", at)
            for i, term in enumerate(terms)
            for at, letter in enumerate(term)
            if letter not in result
        ],
        macs=[
            tuple(dim for letter, dim in by_letter.items() if letter in joined)
            for joined in contractions(terms, result)
        ],
        width=outputs[-1] if several and outputs else None,
    )


def einsum_letters(equation: str, ranks: Sequence[int]) -> tuple[list[list[str]], list[str]]:
    """Return one letter per dimension of each operand and of the result of an einsum.

    Dimensions under an ellipsis are numbered from the right. A result that is not given has the
    letters that occur once, sorted.

    Args:
        equation: The einsum equation.
        ranks: Number of dimensions of each operand.
    """
    given, arrow, result = equation.replace(" ", "").partition("->")

    def spread(term: str, hidden: int) -> list[str]:
        before, dots, after = term.partition("...")
        return [*before, *(str(i) for i in reversed(range(hidden if dots else 0))), *after]

    written = given.split(",")
    hidden = [r - len(t.replace("...", "")) for t, r in zip(written, ranks, strict=True)]
    if not arrow:
        once = [x for x in given if x.isalpha() and given.count(x) == 1]
        result = ("..." if "..." in given else "") + "".join(sorted(once))
    return [spread(t, h) for t, h in zip(written, hidden, strict=True)], spread(result, max(hidden))


def contractions(terms: Sequence[Sequence[str]], result: Sequence[str]) -> Iterator[set[str]]:
    """Give the letters of each matrix product of an einsum.

    Operands are multiplied two at a time from the left, as torch does. A letter of one of the two
    alone that nothing later needs is summed first. A pair without a letter to sum over is no matrix
    product.
    """
    done = set(terms[0])
    for at, term in enumerate(terms[1:], start=2):
        wanted = set(result).union(*terms[at:])
        both, kept = done & set(term), (done | set(term)) & wanted
        if both - wanted:
            yield both | kept
        done = kept


def bilinear(call: Call) -> Equations:
    """Bilinear layer: out[..., o] = x1[..., i] weight[o, i, j] x2[..., j] + bias[o]."""
    x, y, weight = call["input1"], call["input2"], call["weight"]
    out = weight[0]
    same = [(x[-1], weight[1]), (y[-1], weight[2]), *zip(x[:-1], y[:-1], strict=True)]
    same += [(out, bias[0]) for bias in [call.get("bias")] if bias]
    return Equations(
        ((*x[:-1], out),),
        same,
        contracted=(("weight", 1), ("weight", 2)),
        macs=((*x[:-1], *weight),),
        width=out,
    )


def tensordot(call: Call) -> Equations:
    """tensordot: the listed dimensions are contracted, the others stand one after the other."""
    left, right = call["self"], call["other"]
    a, b = ([d % len(x) for d in call[n]] for x, n in ((left, "dims_self"), (right, "dims_other")))
    free = [[d for i, d in enumerate(x) if i not in dims] for x, dims in ((left, a), (right, b))]
    summed = [left[i] for i in a]
    return Equations(
        ((*free[0], *free[1]),),
        [(left[i], right[j]) for i, j in zip(a, b, strict=True)],
        head_width=(*summed, *free[1]),
        contracted=[*(("self", i) for i in a), *(("other", j) for j in b)],
        macs=((*free[0], *summed, *free[1]),),
        width=free[1][-1] if free[1] else None,
    )


RULES: dict[str, Rule] = {
    **table(linear, "linear"),
    **table(matmul, "matmul linalg_matmul mm bmm mv dot vdot"),
    **table(addmm, "addmm baddbmm addmm_ baddbmm_"),
    **table(addmv, "addmv"),
    **table(addbmm, "addbmm"),
    **table(inner, "inner"),
    **table(outer, "outer ger addr"),
    **table(distances, "cdist"),
    **table(cross, "cross linalg_cross"),
    **table(einsum, "einsum"),
    **table(bilinear, "bilinear"),
    **table(tensordot, "tensordot"),
}
