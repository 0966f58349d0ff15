"""Give the equations of tensors made out of nothing.

Their dimensions are free, unless their values count positions.
"""

from __future__ import annotations

from compressor.graph.rules.call import Call, Equations, Refusal, Rule, fresh, keep_all, table
from compressor.graph.rules.reasons import COUNTED, DIAGONAL


def fill(call: Call) -> Equations:
    """zeros, full, ...: every dimension of out is free; the fill shrinks with its user."""
    out = fresh(call.outputs[0])
    return Equations((out,), literals={"size": out})


counted = Refusal(COUNTED)
"""arange, eye, masks, ...: all is kept, since the values depend on positions and sizes."""


def diagonal_of(call: Call) -> Equations:
    """diag_embed: x's last dimension stands along the diagonal of two, all kept; others pass."""
    x, sizes = call.x, call.outputs[0]
    ends = {
        call.dim(name, default, rank=len(sizes)) for name, default in (("dim1", -2), ("dim2", -1))
    }
    others = iter(x[:-1])
    out = tuple(fresh([n])[0] if i in ends else next(others) for i, n in enumerate(sizes))
    return Equations((out,), keep=keep_all((x[-1], *(out[i] for i in ends)), DIAGONAL))


RULES: dict[str, Rule] = {
    **table(
        fill,
        "zeros ones full empty.memory_format new_zeros new_ones new_full new_empty rand randn",
    ),
    **table(
        counted,
        """arange arange.start arange.start_step linspace eye eye.m scalar_tensor
        tril_indices triu_indices diag diagonal meshgrid meshgrid.indexing one_hot""",
    ),
    **table(diagonal_of, "diag_embed"),
}
