"""Give the equations of scaled dot-product attention as one operator."""

from __future__ import annotations

from compressor.graph.axes import Axis, Dim, Product
from compressor.graph.rules.call import Call, Equations, Rule, broadcast, same_where_sized, table
from compressor.graph.rules.reasons import ATTENDED


def attention(call: Call) -> Equations:
    """Attention: softmax(q kᵀ / √e) v with q[..., t, e], k[..., s, e], v[..., s, f] -> [..., t, f].

    Heads are leading dimensions; with grouped queries q's heads are k's times a repetition.
    """
    q, k, v = call["query"], call["key"], call["value"]
    (t, e), (s, f) = q[-2:], v[-2:]
    same: list[tuple[Dim, Dim]] = [(e, k[-1]), (s, k[-2])]
    heads = q[:-2]
    if call.get("enable_gqa", False) and heads and heads[-1].size != k[-3].size:
        copies = Axis(q[-3].size // k[-3].size)
        same += [(q[-3], Product((k[-3], copies))), (k[-3], v[-3])]
        same += [*zip(q[:-3], k[:-3], strict=True), *zip(q[:-3], v[:-3], strict=True)]
    else:
        lead = broadcast((q[:-2], k[:-2], v[:-2]), call.outputs[0][:-2])
        heads, same = lead.outputs[0], [*same, *lead.same]
    mask = call.get("attn_mask")
    out = (*heads, t, f)
    if mask:
        same += same_where_sized(mask, (*heads, t, s))
    width = call["query"][-1].size
    return Equations(
        (out,),
        same,
        keep=[(t, ATTENDED), (s, ATTENDED)],
        heads=heads,
        head_width=(e, f),
        macs=((*heads, t, s, e), (*heads, t, s, f)),
        pins={} if call.get("scale") is not None else {"scale": (width**-0.5, e)},
    )


RULES: dict[str, Rule] = {**table(attention, "scaled_dot_product_attention")}
