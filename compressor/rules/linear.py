"""Linear layers and matrix products: one dimension is contracted, the others pass."""

from __future__ import annotations

from compressor.axes import Axis, Dim
from compressor.rules.call import (
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


def linear(call: Call) -> Equations:
    """out[..., o] = x[..., i] weight[o, i] + bias[o]."""
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
    """out[..., m, n] = left[..., m, k] right[..., k, n]; leading dimensions broadcast."""
    lead = broadcast((left[:-2], right[:-2]), batch)
    m, k, n = left[-2], left[-1], right[-1]
    return Equations(
        ((*lead.outputs[0], m, n),),
        [*lead.same, (k, right[-2])],
        macs=((*lead.outputs[0], m, k, n),),
        width=n,
    )


def matmul(call: Call) -> Equations:
    """torch.matmul: vectors are lifted to matrices for the product, then dropped again."""
    names = ("self", "mat2" if "mat2" in call.arguments else "other")
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
    """out = self + mat1 @ mat2 (batched alike)."""
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


def einsum(call: Call) -> Equations:
    """Every letter is one dimension; letters that the result lacks are contracted."""
    operands = call["tensors"]
    terms, arrow, result = call["equation"].replace(" ", "").partition("->")
    letters = terms.split(",")
    if not arrow or "." in terms:
        return refused(call, "an einsum with an ellipsis or an implicit result")
    by_letter: dict[str, Dim] = {}
    same: list[tuple[Dim, Dim]] = []
    for term, shape in zip(letters, operands, strict=True):
        for letter, dim in zip(term, shape, strict=True):
            first = by_letter.setdefault(letter, dim)
            if first.size == 1:
                by_letter[letter] = dim
            elif dim is not first and dim.size == first.size:
                same.append((first, dim))
    summed = [letter for letter in by_letter if letter not in result]
    outputs = tuple(by_letter[letter] for letter in result)
    two = len(operands) == 2
    return Equations(
        (outputs,),
        same,
        head_width=[by_letter[letter] for letter in summed] if two else (),
        contracted=[
            (f"tensors.{i}", term.index(letter))
            for i, term in enumerate(letters)
            for letter in summed
            if letter in term
        ],
        macs=(tuple(by_letter.values()),) if two else (),
        width=outputs[-1] if two and outputs else None,
    )


def refused(call: Call, what: str) -> Equations:
    """A form of an operator that no rule describes: everything it touches is kept."""
    outputs = tuple(fresh(sizes) for sizes in call.outputs)
    touched = [dim for shape in (*call.tensors, *outputs) for dim in shape]
    return Equations(outputs, keep=keep_all(touched, f"{what} has no rule"))


RULES: dict[str, Rule] = {
    **table(linear, "linear"),
    **table(matmul, "matmul mm bmm mv dot"),
    **table(addmm, "addmm baddbmm"),
    **table(einsum, "einsum"),
}
