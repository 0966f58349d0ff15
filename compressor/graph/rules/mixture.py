"""Give the equations of mixtures of experts: data send each row to some of the weights in a stack.

A router takes the largest of its numbers, one for each expert. Which experts these are is then told
by numbers that say positions, and by how many rows each expert gets.
"""

from __future__ import annotations

from compressor.graph.axes import ONE_LESS, Dim, Sum
from compressor.graph.rules.call import (
    Call,
    Equations,
    Meaning,
    Refusal,
    Routing,
    Rule,
    fresh,
    keep_all,
    table,
)
from compressor.graph.rules.reasons import CHOSEN, INDEXED, MIXED

GROUPED = ("transformers.grouped_mm_fallback.default", "_grouped_mm.default")
"""Products of rows with weights of which data choose one for each row."""


def grouped_product(call: Call) -> Equations:
    """grouped_mm: out[s, o] = x[s, i] weight[e, i, o], for the rows of each e that end at offs[e].

    Rows are in the order of e, and kept. Kernels want them to begin at multiples of 16 bytes.
    """
    names = tuple(call.arguments)[:2]
    x, weight, ends = call[names[0]], call[names[1]], call.get("offs")
    if ends is None or len(x) != 2 or len(weight) != 3 or call.get("bias"):
        return Refusal(INDEXED)(call)
    (rows, features), (experts, inner, out) = x, weight
    same: list[tuple[Dim, Dim]] = [(features, inner), (experts, ends[0])]
    told, stacked = call.meanings.get("offs"), tuple[Dim, ...]()
    if told is not None and told.says == "end":
        same.append((experts, told.of))
        stacked = (experts,)
    return Equations(
        ((rows, out),),
        same,
        keep=[(rows, INDEXED)] if stacked else keep_all((rows, experts), INDEXED),
        routing=Routing(stacked=stacked, aligned=(inner, out)) if stacked or not told else None,
        contracted=((names[1], 1),),
        macs=((rows, features, out),),
        width=out,
    )


def choose(call: Call) -> Equations:
    """topk: along `dim` the largest are taken, so both sides of it are kept.

    What is taken of a router's numbers says which experts there are to be.
    """
    at, x = call.dim("dim", -1), call.x
    (taken,) = fresh([call.outputs[0][at]])
    out = (*x[:at], taken, *x[at + 1 :])
    chosen = Routing((x[at],), call["k"], meanings=(None, Meaning("position", x[at])))
    return Equations(
        (out, out),
        keep=keep_all((x[at], taken), CHOSEN),
        routing=chosen if call["largest"] and not call.meanings else None,
    )


def count(call: Call) -> Equations:
    """histc: out[b] = how many numbers of x are in bin b; both are kept.

    Where there is a bin for each position that the numbers say, the counts stand along these.
    """
    told, bins = call.meanings.get("self"), call["bins"]
    if told is None or told.says != "position" or not _is_bin_each(call, told.of.size):
        (out,) = fresh([bins])
        return Equations(((out,),), keep=keep_all((out, *call.x), INDEXED))
    return Equations(
        ((told.of,),),
        keep=keep_all(call.x, INDEXED),
        routing=Routing(meanings=(Meaning("count", told.of),)),
        literals={"bins": told.of},
        pins={"max": (Sum((told.of, ONE_LESS)), told.of)},
    )


def _is_bin_each(call: Call, size: int) -> bool:
    return (call["bins"], call["min"], call["max"]) == (size, 0, size - 1)


def running_sum(call: Call) -> Equations:
    """cumsum: out = x; indices depend on each other along `dim`, which is kept.

    Sums of counts say where those at each position end.
    """
    at = call.dim()
    told, keep = call.meanings.get("self"), [(call.x[at], MIXED)]
    if told is None or told.says != "count":
        return Equations((call.x,), keep=keep)
    ends = Routing(competing=(call.x[at],), meanings=(Meaning("end", told.of),))
    return Equations((call.x,), keep=keep, routing=ends)


RULES: dict[str, Rule] = {
    **table(grouped_product, " ".join(GROUPED)),
    **table(choose, "topk"),
    **table(count, "histc"),
    **table(running_sum, "cumsum"),
}
