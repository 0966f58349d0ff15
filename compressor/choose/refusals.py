"""Build the errors of selection."""

from __future__ import annotations

import math
from collections.abc import Sequence

from compressor.errors import CompressorError, UsageError
from compressor.graph.network import Network
from compressor.options import Limit, flag
from compressor.records import Group


def nothing_to_prune(
    network: Network, globs: Sequence[str], options: Sequence[str]
) -> CompressorError:
    """Build the error that nothing may go: `globs` protect, and `options` would let more go."""
    reasons = list(dict.fromkeys(f"{p.reason} ({p.place})" for p in network.protections))[:5]
    steps = [*options, *(["protect less"] if globs else [])]
    return CompressorError(
        "there is no group of channels to prune",
        where="; ".join(reasons) or "the network has no parameters with free channels",
        consequence="the network stays as it is",
        next_step=" or ".join(steps) or "see the reasons above; another network may suit",
    )


def unmatched(option: str, glob: str, near: Sequence[str]) -> UsageError:
    """Build the error that a glob matches no name; `near` are some that there are."""
    return UsageError(
        f"{option} {glob!r} matches no module or parameter",
        consequence="nothing is pruned, since it would not be as you want it",
        next_step=f"nearest names: {', '.join(near)}",
    )


def within_already(limit: Limit, before: float) -> UsageError:
    """Build the error that a network costs no more than a limit as it is."""
    return UsageError(
        f"a call takes {before:.4g} ms, which is within {limit.most:g} already"
        if limit.unit == "latency"
        else f"the network has {before:,.10g} {limit.unit}, which is within {limit.most:,.10g} "
        "already",
        where=flag(limit.option),
        consequence="nothing is pruned",
        next_step="give a smaller number, or --ratio",
    )


def no_group(glob: str, share: float, hits: set[str], groups: Sequence[Group]) -> UsageError:
    coupled = [
        g.layer for g in groups if any(m.tensor in hits and not m.contracted for m in g.members)
    ]
    instead = f"--layer-ratio '{coupled[0]}={share:g}'" if coupled else ""
    return UsageError(
        f"--layer-ratio {glob!r} matches no layer that makes channels of its own that are pruned",
        where=f"its channels go with those of {', '.join(dict.fromkeys(coupled))}"
        if coupled
        else "",
        consequence="nothing is pruned",
        next_step=instead or "compress inspect shows what can be pruned",
    )


def removes_nothing() -> UsageError:
    return UsageError(
        "--layer-ratio alone removes nothing",
        where="no share that it gives is as much as one channel",
        consequence="nothing is pruned",
        next_step="give larger shares, or --ratio for the other layers",
    )


def overshot(ratio: float, of: str, removed: float) -> CompressorError:
    return CompressorError(
        f"--layer-ratio alone removes {removed:.3f} of the {of}, more than --ratio {ratio:g}",
        where="the other layers would keep all their channels",
        consequence="nothing is pruned",
        next_step="leave --ratio out for just that, or give --best-effort or smaller shares",
    )


class OutOfReachError(CompressorError):
    """The error raised where more is to be removed than can be."""


def out_of_reach(
    ratio: float, of: str, reachable: float, *, fixed: bool, measured: bool
) -> OutOfReachError:
    floor = math.floor(reachable * 1000) / 1000
    return OutOfReachError(
        f"--ratio {ratio:.4g} of the {of} is out of reach: at most {floor:.3f} can be removed",
        where="each group keeps a tenth of its channels, and protected parts keep all"
        + (", and the layers of --layer-ratio what that says" if fixed else "")
        + (", and no layer is cut further than it was measured" if measured else ""),
        consequence="nothing is pruned",
        next_step=f"--ratio {floor:g}, --best-effort, or --prune stream for more groups",
    )
