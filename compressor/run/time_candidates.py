"""Time the best candidates of a search, and judge them again at the measured time asked for.

The clock predicts some networks as slower than they are, and others as faster: at equal predicted
time they are no equals.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import replace

from compressor.choose import LATENCY
from compressor.run.candidates import Candidates
from compressor.run.until_fast import measure
from compressor.watch import Tick

TIMED = 3
"""How many candidates are timed."""


def time_the_best(made: Candidates, tick: Tick) -> None:
    """Time the best candidates; add those that the measured time makes of them to what was seen."""
    finite = [(each, way) for way, each in made.seen.items() if math.isfinite(each.divergence)]
    best = heapq.nsmallest(TIMED, finite, key=lambda pair: pair[0].divergence)
    whole_ms = made.run.total(LATENCY)
    for number, (_, way) in enumerate(best):
        sliced = made.slice(way)
        if sliced is None:
            continue
        measured = measure(*sliced, made.run.original, whole_ms)
        tick(number, len(best), f"timing the best: {measured.words}")
        made.look_at(replace(way, aim=measured.predicted / measured.share))
