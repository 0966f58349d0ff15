"""Give the equations of look-ups: what data indexes is kept, the other dimensions pass."""

from __future__ import annotations

from compressor.graph.axes import UNIT, Axis, Dim
from compressor.graph.rules.call import (
    Call,
    Equations,
    Meaning,
    Refusal,
    Routing,
    Rule,
    Shape,
    broadcast,
    fresh,
    keep_all,
    same_where_sized,
    table,
)
from compressor.graph.rules.reasons import INDEXED


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
    """Indexing x[i, j, ...] by tensors: indexed dimensions are kept, None passes one on.

    Numbers that say positions still do once they are picked, and may pick from what is stacked.
    """
    x, indices = call.x, call["indices"]
    listed = [i for i, tensor in enumerate(indices) if tensor is not None]
    together = listed == list(range(listed[0], listed[-1] + 1))
    passing: list[Dim] = [dim for i, dim in enumerate(x) if i not in listed]
    count = len(call.outputs[0]) - len(passing)
    if count != max(len(indices[i]) for i in listed):  # a mask takes several dimensions' place
        return _index_by_mask(call, listed)
    at = listed[0] if together else 0
    chosen = fresh(call.outputs[0][at : at + count])
    counted = (dim for tensor in indices if tensor is not None for dim in tensor)
    kept = keep_all((*(x[i] for i in listed), *chosen, *counted), INDEXED)
    out = (*passing[:at], *chosen, *passing[at:])
    told = call.meanings.get(f"indices.{listed[0]}")
    if told is not None and len(call.meanings) == len(listed) == 1:
        return _pick(call, out, kept, told)
    picked = call.meanings.get("self")
    is_known = picked is not None and picked.says == "position" and len(call.meanings) == 1
    return Equations((out,), keep=kept, routing=Routing(meanings=(picked,)) if is_known else None)


def _pick(call: Call, out: Shape, kept: list[tuple[Dim, str]], told: Meaning) -> Equations:
    """x[e], where e says positions: what is stacked along them loses the same ones."""
    stack = call.x[next(i for i, tensor in enumerate(call["indices"]) if tensor is not None)]
    if told.says != "position" or stack.size != told.of.size:
        return Equations((out,), keep=kept)
    others = [(dim, reason) for dim, reason in kept if dim is not stack]
    return Equations((out,), [(stack, told.of)], others, routing=Routing(stacked=(stack,)))


def _index_by_mask(call: Call, listed: list[int]) -> Equations:
    """x[mask]: keep the mask's dimensions and what counts the chosen; let the others pass."""
    x, at = call.x, listed[0]
    mask = call["indices"][at]
    rank = len(mask)
    if len(listed) > 1 or len(call.outputs[0]) != len(x) - rank + 1:
        return overwritten(call)
    (chosen,) = fresh([call.outputs[0][at]])
    kept = (*x[at : at + rank], *mask, chosen)
    return Equations(((*x[:at], chosen, *x[at + rank :]),), keep=keep_all(kept, INDEXED))


def index_put(call: Call) -> Equations:
    """index_put: out = x, written at indices or masks.

    Dimensions up to the last that these can take are kept; those after it agree with the values'.
    """
    x, indices, values = call.x, call["indices"], call["values"]
    listed = [i for i, tensor in enumerate(indices) if tensor is not None]
    if listed != list(range(listed[0], listed[-1] + 1)):
        return overwritten(call)
    end = listed[0] + sum(max(1, len(indices[i])) for i in listed)
    passing = x[end:]
    counted = (dim for i in listed for dim in indices[i])
    kept = (*x[:end], *values[: max(0, len(values) - len(passing))], *counted)
    return Equations((x,), same_where_sized(values, passing), keep=keep_all(kept, INDEXED))


overwritten = Refusal(INDEXED)
"""Which dimensions are picked is not seen here."""


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
    """gather: out has the index's dimensions; they are kept where not x's own, and at `dim`.

    Numbers that say positions along `dim` pick the same ones where others are gone.
    """
    at, x, out = call.dim(), call.x, call["index"]
    same = [
        (a, b) for i, (a, b) in enumerate(zip(x, out, strict=True)) if i != at and a.size == b.size
    ]
    cropped = [
        a for i, (a, b) in enumerate(zip(x, out, strict=True)) if i == at or a.size != b.size
    ]
    told, routing = call.meanings.get("index"), None
    is_position = told is not None and told.says == "position" and len(call.meanings) == 1
    if told is not None and is_position and told.of.size == x[at].size:
        same.append((x[at], told.of))
        routing = Routing(competing=(x[at],))
    return Equations(
        (tuple(out),), same, keep=keep_all((*cropped, out[at]), INDEXED), routing=routing
    )


def take_along(call: Call) -> Equations:
    """take_along_dim: gather whose operands are broadcast but along `dim`, which is kept."""
    if call.get("dim") is None:
        return overwritten(call)
    at, x, index = call.dim(), call.x, call["indices"]
    others = [(*shape[:at], UNIT, *shape[at + 1 :]) for shape in (x, index)]
    sizes = call.outputs[0]
    joined = broadcast(others, (*sizes[:at], 1, *sizes[at + 1 :]))
    out = (*joined.outputs[0][:at], index[at], *joined.outputs[0][at + 1 :])
    return Equations((out,), joined.same, keep=keep_all((x[at], index[at]), INDEXED))


def bucketize(call: Call) -> Equations:
    """bucketize, searchsorted, isin: out = x; what it is looked up in is kept.

    What counts several sorted rows goes with x.
    """
    names = ("boundaries", "sorted_sequence", "test_elements")
    among = next(call[name] for name in names if name in call.arguments)
    x = next(call[name] for name in ("elements", "input", "self") if name in call.arguments)
    rows = among[:-1] if "sorted_sequence" in call.arguments else ()
    kept = among[len(rows) :] if rows else among
    same = list(zip(rows, x, strict=False))
    order = call.get("sorter") or ()
    same += list(zip(rows, order, strict=False))
    return Equations((x,), same, keep=keep_all((*kept, *order[len(rows) :]), INDEXED))


RULES: dict[str, Rule] = {
    **table(embedding, "embedding"),
    **table(embedding_bag, "embedding_bag embedding_bag.padding_idx"),
    **table(index_select, "index_select"),
    **table(index, "index.Tensor"),
    **table(gather, "gather"),
    **table(take_along, "take_along_dim"),
    **table(bucketize, "bucketize.Tensor searchsorted.Tensor isin.Tensor_Tensor"),
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
    **table(index_put, "index_put index_put_ _unsafe_index_put"),
    **table(
        overwritten,
        "masked_scatter masked_scatter_ masked_select nonzero",
    ),
}
