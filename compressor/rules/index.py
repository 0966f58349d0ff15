"""Look-ups: what data indexes is kept, the other dimensions pass."""

from __future__ import annotations

from compressor.axes import Axis, Dim
from compressor.rules.call import Call, Equations, Rule, fresh, keep_all, table

INDEXED = "rows are looked up by data"


def embedding(call: Call) -> Equations:
    """out[..., c] = weight[index, c]: the rows are kept."""
    rows, channels = call["weight"]
    out = Axis(channels.size)
    return Equations(((*call["indices"], out),), [(out, channels)], keep=[(rows, INDEXED)])


def index_select(call: Call) -> Equations:
    """out[dim] counts the indices; x[dim] is kept."""
    at = call.dim()
    (chosen,) = fresh([call.outputs[0][at]])
    x = call.x
    return Equations(((*x[:at], chosen, *x[at + 1 :]),), keep=keep_all((x[at], chosen), INDEXED))


def index(call: Call) -> Equations:
    """x[i, j, ...] by tensors: indexed dimensions are kept, None passes the dimension on."""
    x, indices = call.x, call["indices"]
    listed = [i for i, tensor in enumerate(indices) if tensor is not None]
    together = listed == list(range(listed[0], listed[-1] + 1))
    if any(_is_mask(tensor, x) for tensor in indices if tensor is not None):
        return _all_kept(call)
    passing: list[Dim] = [dim for i, dim in enumerate(x) if i not in listed]
    count = len(call.outputs[0]) - len(passing)
    at = listed[0] if together else 0
    chosen = fresh(call.outputs[0][at : at + count])
    return Equations(
        ((*passing[:at], *chosen, *passing[at:]),),
        keep=keep_all((*(x[i] for i in listed), *chosen), INDEXED),
    )


def _is_mask(tensor: tuple[Dim, ...], x: tuple[Dim, ...]) -> bool:
    """A boolean mask takes the place of several dimensions; its type is not seen here."""
    return len(tensor) > 1 and len(tensor) == len(x)


def _all_kept(call: Call) -> Equations:
    outputs = tuple(fresh(sizes) for sizes in call.outputs)
    touched = [dim for shape in (*call.tensors, *outputs) for dim in shape]
    return Equations(outputs, keep=keep_all(touched, INDEXED))


def gather(call: Call) -> Equations:
    """out has the index's dimensions; where they are not x's own, and along `dim`, all is kept."""
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
    **table(index_select, "index_select"),
    **table(index, "index.Tensor"),
    **table(gather, "gather"),
}
