"""Give the equations of pooling and resampling.

Batch and channels pass, spatial positions are kept.
"""

from __future__ import annotations

from compressor.graph.rules.call import Call, Equations, Rule, fresh, keep_all, table
from compressor.graph.rules.reasons import POOLED, SAMPLED, UNPOOLED


def spatial(rank: int) -> Rule:
    """Pooling: out[..., c, *new] = x[..., c, *old] for the last `rank` dimensions."""

    def rule(call: Call) -> Equations:
        x = call.x
        lead = x[: len(x) - rank]
        outputs = tuple((*lead, *fresh(sizes[len(lead) :])) for sizes in call.outputs)
        touched = [*x[len(lead) :], *(dim for out in outputs for dim in out[len(lead) :])]
        return Equations(outputs, keep=keep_all(touched, POOLED))

    return rule


def grid_sample(call: Call) -> Equations:
    """grid_sampler: out[n, c, ...] = x[n, c, ...] at the places of grid[n, ..., 2 or 3]."""
    x, grid = call["input"], call["grid"]
    positions = fresh(call.outputs[0][2:])
    return Equations(
        ((*x[:2], *positions),),
        [(x[0], grid[0])],
        keep=keep_all((*x[2:], *grid[1:], *positions), SAMPLED),
    )


def unpool(rank: int) -> Rule:
    """Unpooling: out[..., c, *new] = x[..., c, *old], put where the indices say."""

    def rule(call: Call) -> Equations:
        equations, lead = spatial(rank)(call), len(call.x) - rank
        pairs = list(zip(call.x, call["indices"], strict=True))
        kept = keep_all((dim for pair in pairs[lead:] for dim in pair), UNPOOLED)
        return Equations(equations.outputs, pairs[:lead], keep=[*equations.keep, *kept])

    return rule


_NAMES = """
avg_pool{n}d max_pool{n}d max_pool{n}d_with_indices adaptive_avg_pool{n}d
adaptive_max_pool{n}d reflection_pad{n}d replication_pad{n}d
"""

RULES: dict[str, Rule] = {
    **{
        name: rule
        for n in (1, 2, 3)
        for name, rule in table(spatial(n), _NAMES.format(n=n)).items()
    },
    **table(grid_sample, "grid_sampler"),
    **table(unpool(2), "max_unpool2d"),
    **table(unpool(3), "max_unpool3d"),
    **table(
        spatial(1),
        "upsample_linear1d upsample_linear1d.vec upsample_nearest1d upsample_nearest1d.vec",
    ),
    **table(
        spatial(2),
        """upsample_nearest2d upsample_nearest2d.vec upsample_bilinear2d upsample_bilinear2d.vec
        upsample_bicubic2d upsample_bicubic2d.vec _upsample_bilinear2d_aa _upsample_bicubic2d_aa
        _upsample_nearest_exact2d _upsample_nearest_exact2d.vec _upsample_bilinear2d_aa.vec
        _upsample_bicubic2d_aa.vec""",
    ),
    **table(
        spatial(3),
        "upsample_nearest3d upsample_nearest3d.vec upsample_trilinear3d upsample_trilinear3d.vec",
    ),
}
