"""Give the equations of reductions and scans along dimensions."""

from __future__ import annotations

from dataclasses import replace

from compressor.graph.axes import UNIT
from compressor.graph.rules.call import (
    Call,
    Equations,
    Routing,
    Rule,
    broadcast,
    fresh,
    keep_all,
    table,
)
from compressor.graph.rules.reasons import CHOSEN, MIXED, ORDERED


def _listed_dims(call: Call, name: str = "dim") -> set[int]:
    dims = call.get(name)
    if dims is None or dims == ():
        return set(range(len(call.x)))
    return {d % len(call.x) for d in (dims if isinstance(dims, tuple) else (dims,))}


def _reduce(call: Call, listed: set[int]) -> Equations:
    keepdim = call.get("keepdim", False)
    out = tuple(
        fresh([1])[0] if i in listed else dim
        for i, dim in enumerate(call.x)
        if keepdim or i not in listed
    )
    return Equations(tuple(out for _ in call.outputs))


def statistic(call: Call) -> Equations:
    """mean, sum, maximum, norm, ...: the listed dimensions vanish in a statistic over them."""
    listed = _listed_dims(call)
    equations = _reduce(call, listed)
    return Equations(equations.outputs, statistics=[call.x[i] for i in sorted(listed)])


def matrix_norm(call: Call) -> Equations:
    """linalg_matrix_norm: both listed dimensions vanish, by default the last two."""
    listed = {d % len(call.x) for d in call.get("dim", (-2, -1))}
    equations = _reduce(call, listed)
    return Equations(equations.outputs, statistics=[call.x[i] for i in sorted(listed)])


def distance(call: Call) -> Equations:
    """cosine_similarity, pairwise_distance, dist: `dim` vanishes from what both broadcast to.

    By default it is the last; `dist` sums over all.
    """
    left, right = list(call.tensors)[:2]
    rank = max(len(left), len(right))
    padded = [(*(UNIT,) * (rank - len(x)), *x) for x in (left, right)]
    sizes = tuple(max(a.size, b.size) for a, b in zip(*padded, strict=True))
    joined = broadcast(padded, sizes)
    (x,) = joined.outputs
    at = call.dim("dim", -1, rank=rank)
    listed = set(range(rank)) if call.op.startswith("dist.") else {at}
    kept = [(i, d) for i, d in enumerate(x) if i not in listed or call.get("keepdim", False)]
    out = tuple(UNIT if i in listed else dim for i, dim in kept)
    return Equations((out,), joined.same, statistics=[x[i] for i in sorted(listed)])


def position(call: Call) -> Equations:
    """argmax, max.dim, ...: the listed dimensions vanish; positions matter, so they are kept."""
    listed = _listed_dims(call)
    equations = _reduce(call, listed)
    return Equations(equations.outputs, keep=keep_all((call.x[i] for i in listed), ORDERED))


def along(call: Call) -> Equations:
    """cumprod, ...: out = x; indices depend on each other along `dim`, which is kept."""
    at = call.dim("dim", -1)
    return Equations(tuple(call.x for _ in call.outputs), keep=[(call.x[at], MIXED)])


def compete(call: Call) -> Equations:
    """softmax: out = x; indices share one sum along `dim`, which is kept but for experts."""
    routing = None if call.meanings else Routing(competing=(call.x[call.dim("dim", -1)],))
    return replace(along(call), routing=routing)


def differences(call: Call) -> Equations:
    """diff: along `dim` each index minus the one before.

    It is kept, and so is what is put at its ends. The other dimensions pass.
    """
    at, x = call.dim("dim", -1), call.x
    ends = [call[name] for name in ("prepend", "append") if call.get(name)]
    same = [(x[i], end[i]) for end in ends for i in range(len(x)) if i != at]
    (less,) = fresh([call.outputs[0][at]])
    touched = (x[at], less, *(end[at] for end in ends))
    return Equations(((*x[:at], less, *x[at + 1 :]),), same, keep=keep_all(touched, MIXED))


def sorted_along(call: Call) -> Equations:
    """sort, kthvalue: along `dim` positions are chosen, so both sides of it are kept."""
    at = call.dim("dim", -1)
    outputs = []
    for sizes in call.outputs:
        (chosen,) = fresh([sizes[at]])
        outputs.append((*call.x[:at], chosen, *call.x[at + 1 :]))
    touched = [call.x[at], *(out[at] for out in outputs)]
    sorted_numbers = Routing(meanings=(call.meanings.get("self"), None))
    return Equations(
        tuple(outputs),
        keep=keep_all(touched, CHOSEN),
        routing=sorted_numbers if call.op.startswith("sort.") else None,
    )


RULES: dict[str, Rule] = {
    **table(
        statistic,
        """mean mean.dim sum sum.dim_IntList amax amin max min prod prod.dim_int var var.dim
        var.correction std std.dim std.correction var_mean.correction std_mean.correction
        norm.ScalarOpt_dim norm.Scalar linalg_vector_norm logsumexp all any all.dim any.dim
        frobenius_norm.dim nansum nanmean aminmax count_nonzero count_nonzero.dim_IntList
        linalg_norm linalg_norm.ord_str""",
    ),
    **table(matrix_norm, "linalg_matrix_norm linalg_matrix_norm.str_ord"),
    **table(distance, "cosine_similarity pairwise_distance dist"),
    **table(
        position,
        """argmax argmin max.dim min.dim median median.dim nanmedian nanmedian.dim mode
        quantile.scalar nanquantile.scalar""",
    ),
    **table(along, "cumprod logcumsumexp cummax cummin"),
    **table(compete, "softmax.int log_softmax.int _softmax _log_softmax"),
    **table(differences, "diff"),
    **table(sorted_along, "sort sort.stable argsort argsort.stable kthvalue"),
}
