"""Time candidates of a search, so that they are judged at the measured time that was asked for.

The clock predicts some networks as slower than they are, and others as faster: at equal predicted
time they are no equals.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import replace

from compressor.choose import LATENCY
from compressor.run.candidates import Candidates, Way
from compressor.run.found import Measured
from compressor.run.until_fast import STEADY, measure
from compressor.watch import Tick

TIMED, SECONDS = 3, 1.5
"""How many candidates are timed, and for how long in one look: what is delivered is timed again."""


def aim_by_the_clock(made: Candidates, tick: Tick) -> None:
    """Time the network of the plain choice, and set the aim of all candidates by it."""
    measured = _measure(made, Way())
    if measured is not None:
        tick(0, 1, f"timing the first: {measured.words}")
        made.aim = measured.predicted / measured.share


def time_the_best(made: Candidates, tick: Tick) -> None:
    """Time the best candidates; add those that the measured time makes of them to what was seen."""
    finite = [(each, way) for way, each in made.seen.items() if math.isfinite(each.divergence)]
    best = heapq.nsmallest(TIMED, finite, key=lambda pair: pair[0].divergence)
    for number, (_, way) in enumerate(best):
        measured = _measure(made, way)
        if measured is not None:
            tick(number, len(best), f"timing the best: {measured.words}")
            aim = measured.predicted / measured.share
            if abs(aim / made.aim - 1) <= STEADY:
                aim = made.aim  # the clock is no steadier: this very network is judged already
            made.look_at(replace(way, aim=aim))


def _measure(made: Candidates, way: Way) -> Measured | None:
    """Time the network of a way against the original; None where the goal is out of reach."""
    sliced = made.slice(way)
    if sliced is None:
        return None
    return measure(*sliced, made.run.original, made.run.total(LATENCY), SECONDS)
