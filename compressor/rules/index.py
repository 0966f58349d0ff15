"""Give the equations of look-ups: what data indexes is kept, the other dimensions pass."""

from __future__ import annotations

from compressor.axes import Axis, Dim
from compressor.rules.call import Call, Equations, Refusal, Rule, fresh, keep_all, table
from compressor.rules.reasons import INDEXED


def embedding(call: Call) -> Equations:
    """Embedding: out[..., c] = weight[index, c]; the rows are kept."""
    rows, channels = call["weight"]
    out = Axis(channels.size)
    return Equations(((*call["indices"], out),), [(out, channels)], keep=[(rows, INDEXED)])


def embedding_bag(call: Call) -> Equations:
    """Embedding bag: out[bags, c] = sums of rows of weight[rows, c]; rows and bags are kept."""
    rows, channels = call["weight"]
    bags, *counts = (fresh(sizes) for sizes in call.outputs)
    own = [*call["indices"], *call["offsets"], *(call.get("per_sample_weights") or ())]
    others = [dim for shape in ((rows, bags[0]), own, *counts) for dim in shape]
    return Equations(((bags[0], channels), *counts), keep=keep_all(others, INDEXED))


def index_select(call: Call) -> Equations:
    """index_select: out = x with x[dim] replaced by the number of indices; both are kept."""
    at = call.dim()
    (chosen,) = fresh([call.outputs[0][at]])
    x = call.x
    return Equations(
        ((*x[:at], chosen, *x[at + 1 :]),),
        keep=keep_all((x[at], chosen, *call["index"]), INDEXED),
    )


def index(call: Call) -> Equations:
    """Indexing x[i, j, ...] by tensors: indexed dimensions are kept, None passes the dimension
    on."""
    x, indices = call.x, call["indices"]
    listed = [i for i, tensor in enumerate(indices) if tensor is not None]
    together = listed == list(range(listed[0], listed[-1] + 1))
    passing: list[Dim] = [dim for i, dim in enumerate(x) if i not in listed]
    count = len(call.outputs[0]) - len(passing)
    if count != max(len(indices[i]) for i in listed):  # a mask takes several dimensions' place
        return overwritten(call)
    at = listed[0] if together else 0
    chosen = fresh(call.outputs[0][at : at + count])
    counted = (dim for tensor in indices if tensor is not None for dim in tensor)
    return Equations(
        ((*passing[:at], *chosen, *passing[at:]),),
        keep=keep_all((*(x[i] for i in listed), *chosen, *counted), INDEXED),
    )


overwritten = Refusal(INDEXED)
"""Masks and index_put: which dimensions they pick is not seen here."""


def scatter(call: Call) -> Equations:
    """scatter: out = x, written at an index along `dim`; the others pass where they are whole."""
    at, x = call.dim(), call.x
    written = [call[name] for name in ("index", "src") if call.get(name)]
    same, keep = [], keep_all((x[at], *(shape[at] for shape in written)), INDEXED)
    for shape in written:
        for i in (i for i in range(len(x)) if i != at):
            if x[i].size == shape[i].size:
                same.append((x[i], shape[i]))
            else:
                keep += keep_all((x[i], shape[i]), INDEXED)
    return Equations((x,), same, keep=keep)


def index_write(call: Call) -> Equations:
    """index_add, index_copy, index_fill: out = x, rows along `dim` written by their numbers."""
    at, x = call.dim(), call.x
    source = call.get("source") or x
    same = [pair for i, pair in enumerate(zip(x, source, strict=True)) if i != at]
    return Equations((x,), same, keep=keep_all((x[at], source[at], *call["index"]), INDEXED))


def gather(call: Call) -> Equations:
    """gather: out has the index's dimensions; where they are not x's own, and along `dim`, all is
    kept."""
    at, x, out = call.dim(), call.x, call["index"]
    same = [
        (a, b) for i, (a, b) in enumerate(zip(x, out, strict=True)) if i != at and a.size == b.size
    ]
    cropped = [
        a for i, (a, b) in enumerate(zip(x, out, strict=True)) if i == at or a.size != b.size
    ]
    return Equations((tuple(out),), same, keep=keep_all((*cropped, out[at]), INDEXED))


RULES: dict[str, Rule] = {
    **table(embedding, "embedding"),
    **table(embedding_bag, "embedding_bag embedding_bag.padding_idx"),
    **table(index_select, "index_select"),
    **table(index, "index.Tensor"),
    **table(gather, "gather"),
    **table(
        scatter,
        """scatter.src scatter.value scatter_add scatter_.src scatter_.value scatter_add_
        scatter_reduce.two scatter_reduce_.two""",
    ),
    **table(
        index_write,
        """index_add index_copy index_fill.int_Scalar index_add_ index_copy_
        index_fill_.int_Scalar""",
    ),
    **table(
        overwritten,
        """index_put index_put_ _unsafe_index_put masked_scatter masked_scatter_ masked_select
        nonzero""",
    ),
}
