"""Give the equations of normalisations: channels pass, and what statistics are over is said."""

from __future__ import annotations

from compressor.graph.axes import Axis, Dim, Product
from compressor.graph.rules.call import Call, Equations, Rule, same_where_sized, table


def _vectors(call: Call, *names: str) -> list[Dim]:
    """Return the per-channel vectors among the arguments."""
    return [call[name][0] for name in names if call.get(name)]


def per_channel(call: Call) -> Equations:
    """Batch and instance norm: x[1] ~ weight ~ bias ~ running mean ~ running variance.

    Where the input's own statistics are used (instance norm, standardised weights), they are taken
    over all other dimensions.
    """
    vectors = _vectors(call, "weight", "bias", "running_mean", "running_var")
    own = call.get("training", False) or call.get("use_input_stats", False)
    return Equations(
        (call.x,),
        [(call.x[1], vector) for vector in vectors],
        statistics=(*call.x[:1], *call.x[2:]) if own else (),
    )


def last_dimensions(call: Call) -> Equations:
    """Layer and RMS norm: the last dimensions ~ weight ~ bias, with statistics over them."""
    normalised = call.x[len(call.x) - len(call["normalized_shape"]) :]
    tensors = [call[name] for name in ("weight", "bias") if call.get(name)]
    same = [pair for tensor in tensors for pair in zip(normalised, tensor, strict=True)]
    return Equations(
        (call.x,), same, statistics=normalised, literals={"normalized_shape": normalised}
    )


def group_norm(call: Call) -> Equations:
    """Group norm: x[1] = groups*c ~ weight ~ bias, with statistics over c and all positions."""
    groups = call["num_groups"]
    g, c = Axis(groups), Axis(call.x[1].size // groups)
    channels = [call.x[1], *_vectors(call, "weight", "bias")]
    return Equations(
        (call.x,),
        [(dim, Product((g, c))) for dim in channels],
        statistics=(c, *call.x[2:]),
        literals={"num_groups": g},
    )


def weight_norm(call: Call) -> Equations:
    """Weight norm: out = g * v / |v|, with statistics over all but `dim` (-1: over all)."""
    v, g, at = call["v"], call["g"], call["dim"]
    own = {at} if at >= 0 else set()
    return Equations(
        (v,), same_where_sized(v, g), statistics=[d for i, d in enumerate(v) if i not in own]
    )


RULES: dict[str, Rule] = {
    **table(per_channel, "batch_norm instance_norm"),
    **table(last_dimensions, "layer_norm rms_norm"),
    **table(group_norm, "group_norm"),
    **table(weight_norm, "_weight_norm"),
}
