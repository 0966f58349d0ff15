"""Give the equations of tensors made out of nothing.

Their dimensions are free, unless their values count positions.
"""

from __future__ import annotations

from compressor.rules.call import Call, Equations, Refusal, Rule, fresh, table
from compressor.rules.reasons import COUNTED


def filled(call: Call) -> Equations:
    """zeros, full, ...: every dimension of out is free; the fill shrinks with its user."""
    out = fresh(call.outputs[0])
    return Equations((out,), literals={"size": out})


counted = Refusal(COUNTED)
"""arange, eye, masks, ...: the values depend on positions and sizes."""


RULES: dict[str, Rule] = {
    **table(
        filled,
        "zeros ones full empty.memory_format new_zeros new_ones new_full new_empty rand randn",
    ),
    **table(
        counted,
        """arange arange.start arange.start_step linspace eye eye.m scalar_tensor
        diag diagonal meshgrid meshgrid.indexing one_hot""",
    ),
}
