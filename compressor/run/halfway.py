"""Score the channels of a network by what is left of it when half of the way is done.

What a layer is given, and what others can make up for, differs in a network that has lost most of
its channels; errors measured there say more about the next ones (moments of the network as pruned
so far, cf. Tyr-the-Pruner, Li et al. 2025).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from torch.export import ExportedProgram

from compressor.run.decide import Keep
from compressor.run.opened import Run
from compressor.run.rating import analyse_anew, rate
from compressor.run.repairing import quiet
from compressor.run.without_blocks import match_groups
from compressor.score import Scores

Floats = npt.NDArray[np.float64]


def score_again(run: Run, keep: Keep, smaller: ExportedProgram) -> Scores:
    """Score the channels that are left in a smaller network; return scores for the whole one.

    Channels that are gone are scored below all others, in their old order, so that they go first.
    Groups that the smaller network no longer has go last.

    Args:
        run: The whole network's.
        keep: The channels that the smaller network keeps of each group.
        smaller: Its program, repaired.
    """
    # only evaluation was cut, so that layers for training alone no longer fit it
    trace = replace(run.trace, program=smaller, training=None)
    network = analyse_anew(run, trace)
    fresh = rate(replace(run, trace=trace), network, quiet, lambda text: None)
    kept = {name: len(channels) for name, channels in keep.items()}
    names = match_groups(run.network, network, kept)
    matched = {old: fresh[name] for name, old in names.items() if name in fresh}
    positive = np.concatenate([some[some > 0] for some in matched.values()] or [np.ones(1)])
    below, most = positive.min() / 2, positive.max()
    return {
        name: _merge(old, list(keep.get(name, range(len(old)))), matched.get(name, most), below)
        for name, old in run.scores.items()
    }


def _merge(old: Floats, kept: list[int], fresh: Floats | float, below: float) -> Floats:
    """Return one group's scores: fresh ones of the channels that are kept, others below them."""
    merged = below * old / max(float(old.max()), 1e-300)
    merged[kept] = fresh
    return merged
