"""Give the equations of convolutions: in = groups*i, out = groups*o.

Kernel and spatial positions are kept.
"""

from __future__ import annotations

from collections.abc import Callable

from compressor.graph.axes import Axis, Dim, Product
from compressor.graph.rules.call import Call, Equations, Rule, fresh, keep_all, table
from compressor.graph.rules.reasons import KERNEL, SLID


def convolution(spatial: int, *, transposed: bool) -> Rule:
    """Convolution: x[N, g*i, ...] with weight[g*o, i, ...] -> [N, g*o, ...].

    A transposed one has weight[g*i, o, ...]. `spatial` is the number of spatial dimensions.
    """

    def rule(call: Call) -> Equations:
        x, weight, groups = call["input"], call["weight"], call.get("groups", 1)
        lead, channels, window = x[: -spatial - 1], x[-spatial - 1], weight[2:]
        inner = (weight[0] if transposed else weight[1]).size // (groups if transposed else 1)
        outer = (weight[1] if transposed else weight[0]).size // (1 if transposed else groups)
        g, i, o = Axis(groups), Axis(inner), Axis(outer)
        g_i, g_o = Product((g, i)), Product((g, o))
        positions = fresh(call.outputs[0][-spatial:])
        same: list[tuple[Dim, Dim]] = [(channels, g_i)]
        same += (
            [(weight[0], g_i), (weight[1], o)] if transposed else [(weight[0], g_o), (weight[1], i)]
        )
        same += [(g_o, bias[0]) for bias in [call.get("bias")] if bias]
        counted = x[-spatial:] if transposed else positions
        return Equations(
            ((*lead, g_o, *positions),),
            same,
            keep=[
                *keep_all(window, KERNEL),
                *keep_all((*x[-spatial:], *positions), SLID),
            ],
            contracted=(("weight", 0 if transposed else 1),),
            macs=((*lead, g, i, o, *window, *counted),),
            width=g_o,
            literals={"groups": g},
        )

    return rule


_family: Callable[[int], dict[str, Rule]] = lambda n: {  # noqa: E731 - a table row per rank
    **table(convolution(n, transposed=False), f"conv{n}d conv{n}d.padding"),
    **table(convolution(n, transposed=True), f"conv_transpose{n}d{'' if n == 1 else '.input'}"),
}

RULES: dict[str, Rule] = {**_family(1), **_family(2), **_family(3)}
