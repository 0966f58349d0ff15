"""Give the equations of torchvision's operators that read an image at places that data say."""

from __future__ import annotations

from compressor.graph.axes import Axis, Dim, Product
from compressor.graph.rules.call import (
    Call,
    Equations,
    Refusal,
    Rule,
    fresh,
    keep_all,
    same_where_sized,
    table,
)
from compressor.graph.rules.reasons import INDEXED, KERNEL, OFFSETS, POOLED, SAMPLED


def deformable_convolution(call: Call) -> Equations:
    """Deformable convolution: x[n, g*i, ...] with weight[g*o, i, ...] -> [n, g*o, ...].

    x is read at places that the offsets say. offset[n, s*2*kernel, ...] and mask[n, s*kernel, ...]
    have places for s equal parts of x's channels, so that each part loses the same.
    """
    x, weight, offset, bias = (call[name] for name in ("input", "weight", "offset", "bias"))
    mask = call["mask"] if call["use_mask"] else ()
    groups, parts = call["groups"], call["offset_groups"]
    g, i, o = Axis(groups), Axis(weight[1].size), Axis(weight[0].size // groups)
    part = Axis(parts)
    positions = fresh(call.outputs[0][2:])
    same: list[tuple[Dim, Dim]] = [
        (x[1], Product((g, i))),
        (x[1], Product((part, Axis(x[1].size // parts)))),
        (weight[0], Product((g, o))),
        (weight[1], i),
        *same_where_sized(bias, weight[:1]),
        *((x[0], shape[0]) for shape in (offset, mask) if shape),
    ]
    return Equations(
        ((x[0], Product((g, o)), *positions),),
        same,
        keep=[
            *keep_all(weight[2:], KERNEL),
            *keep_all((part, *offset[1:], *mask[1:]), OFFSETS),
            *keep_all((*x[2:], *positions), SAMPLED),
        ],
        contracted=(("weight", 1),),
        macs=((x[0], g, i, o, *weight[2:], *positions),),
        width=Product((g, o)),
        literals={"groups": g},
    )


def regions(call: Call) -> Equations:
    """roi_align, roi_pool: out[regions, c, ...] from x[n, c, ...] at rois[regions, 5]."""
    x, rois = call["input"], call["rois"]
    outputs = tuple((rois[0], x[1], *fresh(sizes[2:])) for sizes in call.outputs)
    positions = (dim for out in outputs for dim in out[2:])
    return Equations(
        outputs,
        keep=[*keep_all((x[0], *rois), INDEXED), *keep_all((*x[2:], *positions), POOLED)],
    )


chosen = Refusal(INDEXED)
"""nms, ps_roi_align, ps_roi_pool: all is kept. Data decide how many boxes are left, and which; a
position of a region has channels of its own, and the results say which."""


RULES: dict[str, Rule] = {
    **table(deformable_convolution, "torchvision.deform_conv2d.default"),
    **table(regions, "torchvision.roi_align.default torchvision.roi_pool.default"),
    **table(
        chosen,
        """torchvision.nms.default torchvision.ps_roi_align.default
        torchvision.ps_roi_pool.default""",
    ),
}
