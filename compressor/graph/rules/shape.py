"""Give the equations of reshaping, reordering and stretching.

The same positions are written as other dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

from compressor.graph.axes import Axis, Dim, Product, Sum
from compressor.graph.rules.call import (
    Call,
    Equations,
    Rule,
    fresh,
    keep_all,
    same_where_sized,
    table,
)
from compressor.graph.rules.reasons import COMPLEX, MOVED, PADDED, PIXELS, TRIANGLE, WINDOWS


def view(call: Call) -> Equations:
    """view, reshape: product(in) = product(out), row-major."""
    out = fresh(call.outputs[0])
    literals = {"size": out} if "size" in call.arguments else {"shape": out}
    return Equations((out,), [(Product(call.x), Product(out))], literals=literals)


def flatten(call: Call) -> Equations:
    """flatten: out[start] = the product of x[start..end]."""
    x = call.x
    start, end = call.dim("start_dim", 0), call.dim("end_dim", -1)
    return Equations(((*x[:start], Product(x[start : end + 1]), *x[end + 1 :]),))


def unflatten(call: Call) -> Equations:
    """unflatten: x[dim] = the product of the new dimensions."""
    at = call.dim()
    out = fresh(call.outputs[0])
    parts = out[at : at + len(call["sizes"])]
    x = call.x
    return Equations(
        ((*x[:at], *parts, *x[at + 1 :]),), [(x[at], Product(parts))], literals={"sizes": parts}
    )


def permute(call: Call) -> Equations:
    """permute: out[i] = x[dims[i]]."""
    return Equations((tuple(call.x[d] for d in call["dims"]),))


def transpose(call: Call) -> Equations:
    """transpose: out = x with two dimensions exchanged."""
    names = ("dim0", "dim1") if "dim0" in call.arguments else ("axis0", "axis1")
    a, b = (call.dim(name) for name in names)
    out = list(call.x)
    out[a], out[b] = out[b], out[a]
    return Equations((tuple(out),))


def reverse(call: Call) -> Equations:
    """t, numpy_T: out = x with its dimensions in reverse order."""
    return Equations((call.x[::-1],))


def swap_last(call: Call) -> Equations:
    """mT: out = x with its last two dimensions exchanged."""
    *lead, rows, columns = call.x
    return Equations(((*lead, columns, rows),))


def move(call: Call) -> Equations:
    """movedim: out[destination] = x[source], the others in their order."""
    rank = len(call.x)
    source, target = (
        [d % rank for d in (dims if isinstance(dims, tuple) else (dims,))]
        for dims in (call["source"], call["destination"])
    )
    moved = dict(zip(target, source, strict=True))
    rest = iter(d for d in range(rank) if d not in source)
    return Equations(
        (tuple(call.x[moved.get(i, -1) if i in moved else next(rest)] for i in range(rank)),)
    )


def squeeze(call: Call) -> Equations:
    """squeeze: out = x without dimensions of size 1.

    They are then spelled by number, so that a dimension pruned to size 1 is not dropped too.
    """
    dim = call.get("dim")
    listed = range(len(call.x)) if dim is None else dim if isinstance(dim, tuple) else (dim,)
    dropped = {d % len(call.x) for d in listed if call.x[d].size == 1}
    kept = tuple(d for i, d in enumerate(call.x) if i not in dropped)
    return Equations((kept,), literals={"dim": tuple(sorted(dropped))}, target="aten.squeeze.dims")


def unsqueeze(call: Call) -> Equations:
    """unsqueeze: out = x with a dimension of size 1 put in."""
    at = call.dim(rank=len(call.x) + 1)
    return Equations(((*call.x[:at], *fresh([1]), *call.x[at:]),))


def expand(call: Call) -> Equations:
    """expand: size 1 is stretched to a free axis, which shrinks with its user; the rest passes."""
    out: list[Dim] = list(fresh(call.outputs[0]))
    new = len(out) - len(call.x)
    for i, dim in enumerate(call.x, new):
        if dim.size == out[i].size:
            out[i] = dim
    literals = {"size": tuple(out)} if "size" in call.arguments else {}
    return Equations((tuple(out),), literals=literals)


def expand_as(call: Call) -> Equations:
    """expand_as: out has the other tensor's dimensions."""
    other = call["other"]
    return Equations((other,), same_where_sized(call.x, other))


def repeat(call: Call) -> Equations:
    """repeat: out[i] = copies * x[i]; the number of copies is a free axis."""
    name = "repeats" if "repeats" in call.arguments else "dims"
    copies = (1,) * (len(call.x) - len(call[name])) + call[name]
    x = (*fresh([1] * (len(copies) - len(call.x))), *call.x)
    free = fresh(copies)
    out = tuple(Product((c, d)) for c, d in zip(free, x, strict=True))
    return Equations((out,), literals={name: free[len(free) - len(call[name]) :]})


def repeat_interleave(call: Call) -> Equations:
    """repeat_interleave: out[dim] = x[dim] * copies, for a fixed number of copies."""
    copies, x = Axis(call["repeats"]), call.x
    literals = {"repeats": copies}
    if call.get("dim") is None:
        return Equations(((Product((*x, copies)),),), literals=literals)
    at = call.dim()
    return Equations(((*x[:at], Product((x[at], copies)), *x[at + 1 :]),), literals=literals)


def shuffle(call: Call) -> Equations:
    """Channel shuffle: x[1] = g*c becomes c*g."""
    x, g = call.x, Axis(call["groups"])
    c = Axis(x[1].size // g.size)
    return Equations(
        ((x[0], Product((c, g)), *x[2:]),),
        [(x[1], Product((g, c)))],
        literals={"groups": g},
    )


def pixel_shuffle(call: Call) -> Equations:
    """Pixel shuffle: x[-3] = c*r*r, out[-2:] = h*r, w*r."""
    r = call["upscale_factor"]
    *lead, channels, h, w = call.x
    c, r1, r2 = Axis(channels.size // r**2), Axis(r), Axis(r)
    return Equations(
        ((*lead, c, Product((h, r1)), Product((w, r2))),),
        [(channels, Product((c, r1, r2)))],
        keep=keep_all((r1, r2, h, w), PIXELS),
    )


def pixel_unshuffle(call: Call) -> Equations:
    """Pixel unshuffle: x[-2:] = h*r, w*r, out[-3] = c*r*r."""
    r = call["downscale_factor"]
    *lead, c, height, width = call.x
    h, w, r1, r2 = Axis(height.size // r), Axis(width.size // r), Axis(r), Axis(r)
    return Equations(
        ((*lead, Product((c, r1, r2)), h, w),),
        keep=keep_all((height, width, r1, r2, h, w), PIXELS),
    )


def reorder(call: Call) -> Equations:
    """flip, roll, fftshift: out = x; positions move along the listed dimensions, which are kept.

    Where none is listed, they move along all.
    """
    dims = call.get("dims", call.get("dim", ()))
    listed: Sequence[int] = dims if isinstance(dims, tuple) and dims else range(len(call.x))
    return Equations((call.x,), keep=keep_all((call.x[d] for d in listed), MOVED))


def unfold(call: Call) -> Equations:
    """im2col: x[..., c, h, w] -> [..., c*kernel positions, windows]."""
    *lead, c, height, width = call.x
    window, positions = fresh([call.outputs[0][-2] // c.size, call.outputs[0][-1]])
    return Equations(
        ((*lead, Product((c, window)), positions),),
        keep=keep_all((height, width, window, positions), WINDOWS),
    )


def fold(call: Call) -> Equations:
    """col2im: x[..., c*kernel positions, windows] -> [..., c, h, w]."""
    *lead, columns, positions = call.x
    c, height, width = fresh(call.outputs[0][-3:])
    (window,) = fresh([columns.size // c.size])
    return Equations(
        ((*lead, c, height, width),),
        [(columns, Product((c, window)))],
        keep=keep_all((height, width, window, positions), WINDOWS),
    )


def windows(call: Call) -> Equations:
    """Tensor.unfold: dimension `dimension` counts windows, a new last one the places in them."""
    at = call.dim("dimension")
    counted, places = fresh([call.outputs[0][at], call["size"]])
    out = (*call.x[:at], counted, *call.x[at + 1 :], places)
    return Equations((out,), keep=keep_all((call.x[at], counted, places), WINDOWS))


def triangle(call: Call) -> Equations:
    """tril and triu: out = x; which places of the last two dimensions are zeroed is fixed."""
    return Equations((call.x,), keep=keep_all(call.x[-2:], TRIANGLE))


def to_complex(call: Call) -> Equations:
    """view_as_complex: pairs along the last dimension become numbers; the two parts are kept."""
    return Equations((call.x[:-1],), keep=[(call.x[-1], COMPLEX)])


def to_pairs(call: Call) -> Equations:
    """view_as_real: complex numbers become pairs along a new last dimension."""
    (pair,) = fresh([2])
    return Equations(((*call.x, pair),), keep=[(pair, COMPLEX)])


def pad(call: Call) -> Equations:
    """pad with a constant: out = before + x + after; the pad widths shrink with it.

    Dimensions that are padded otherwise, or cropped, are kept.
    """
    x, widths = call.x, call["pad"]
    lead = len(x) - len(widths) // 2
    if call.get("mode", "constant") != "constant" or any(w < 0 for w in widths):
        out = (*x[:lead], *fresh(call.outputs[0][lead:]))
        touched = (*x[lead:], *out[lead:])
        return Equations((out,), keep=keep_all(touched, PADDED))
    amounts: tuple[Dim, ...] = tuple(Axis(w) for w in widths)
    shape = list(x)
    for i in range(len(widths) // 2):
        shape[-1 - i] = Sum((amounts[2 * i], shape[-1 - i], amounts[2 * i + 1]))
    return Equations((tuple(shape),), literals={"pad": amounts})


RULES: dict[str, Rule] = {
    **table(view, "view reshape _unsafe_view view_copy _reshape_alias"),
    **table(flatten, "flatten.using_ints"),
    **table(unflatten, "unflatten.int"),
    **table(permute, "permute permute_copy"),
    **table(transpose, "transpose.int transpose_copy.int swapaxes swapdims"),
    **table(reverse, "t numpy_T matrix_H"),
    **table(swap_last, "mT mH adjoint"),
    **table(move, "movedim.intlist movedim.int moveaxis.intlist moveaxis.int"),
    **table(squeeze, "squeeze squeeze.dim squeeze.dims"),
    **table(unsqueeze, "unsqueeze"),
    **table(expand, "expand broadcast_to expand_copy"),
    **table(expand_as, "expand_as view_as reshape_as"),
    **table(repeat, "repeat tile"),
    **table(repeat_interleave, "repeat_interleave.self_int"),
    **table(shuffle, "channel_shuffle native_channel_shuffle"),
    **table(pixel_shuffle, "pixel_shuffle"),
    **table(pixel_unshuffle, "pixel_unshuffle"),
    **table(reorder, "flip fliplr flipud roll fft_fftshift fft_ifftshift"),
    **table(unfold, "im2col"),
    **table(fold, "col2im"),
    **table(windows, "unfold"),
    **table(triangle, "tril triu tril_ triu_"),
    **table(to_complex, "view_as_complex"),
    **table(to_pairs, "view_as_real"),
    **table(pad, "pad constant_pad_nd"),
}
