"""Search how a network becomes smaller, by what its outputs do.

Tried are whole blocks that go; errors that are weighed by what the outputs have at stake; the same
share off each layer; channels that are scored again when half of the way is done; and errors of one
layer that count for more or less than those of another. The number of candidates is given, so the
same seed finds the same network.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from compressor.choose import AtMost, Share
from compressor.choose.blocks import removable
from compressor.choose.budget import (
    blocks_compete,
    candidates_of,
    is_timed,
    layers_compete,
    scores_are_errors,
    search_is_asked_for,
)
from compressor.choose.kinds import BLOCK
from compressor.graph.blocks import Block, find_blocks
from compressor.graph.whole_layers import find_layers
from compressor.processes import each_alone
from compressor.run.candidates import Candidates, Way, samples_to_repair
from compressor.run.decide import Decision
from compressor.run.found import Search
from compressor.run.opened import Run
from compressor.run.proposals import (
    propose_blocks,
    propose_by_stakes,
    propose_evenness,
    propose_factors,
    propose_scoring_again,
)
from compressor.run.time_candidates import aim_by_the_clock, time_the_best
from compressor.score.data import CalibrationBatches
from compressor.watch import Tick

STEPS = 1000
"""In how many steps it is told how far one candidate is."""


def search(run: Run, decision: Decision) -> tuple[Run, Decision]:
    """Return the run and the choice that were found best.

    What is given is returned where nothing is searched for, or nothing better is found.

    Raises:
        OutOfReachError: Channels alone do not meet the goal, and no blocks bring it within reach.
    """
    chosen_from, found = _search(run, decision)
    if decision.refusal is None:
        return chosen_from, found
    if found.search is None or not math.isfinite(found.search.best.divergence):
        raise decision.refusal
    return chosen_from, replace(found, refusal=None)


def _search(run: Run, decision: Decision) -> tuple[Run, Decision]:
    goal, count = decision.goal, candidates_of(run.options)
    if not isinstance(goal, Share | AtMost) or not count:
        return run, decision
    is_asked_for = search_is_asked_for(run.options)
    if run.samples.train is None and not is_asked_for:
        return run, decision
    obstacle = _obstacle(run)
    blocks = _blocks_of(run) if not obstacle and blocks_compete(run.options) else []
    if not obstacle and not blocks and not _may_weigh(run):
        obstacle = "the network has no blocks that may go"
    if obstacle:
        if is_asked_for:
            run.stopwatch.note(f"no blocks are taken out, and nothing is searched for: {obstacle}")
        return run, decision
    assert run.samples.train is not None
    if not samples_to_repair(run, len(run.samples.train)):
        run.stopwatch.note(
            "no smaller networks are compared before one is chosen: each would take minutes to "
            f"repair (--search {count} makes {count})"
        )
        return run, decision
    with run.stopwatch.stage("search for what goes") as tick, each_alone():
        made = Candidates(run, goal, blocks)
        can_time = is_timed(run.options) and run.timing.can_check
        if can_time:
            aim_by_the_clock(made, tick)
        _look_around(made, count, tick)
        if can_time:
            time_the_best(made, tick)
    return _carry_over(run, decision, made)


def may_search(run: Run) -> bool:
    """Return whether the options let a search change the choice, and there are data for it."""
    return candidates_of(run.options) > 0 and run.samples.train is not None


def _obstacle(run: Run) -> str:
    """Return in words why nothing can be searched for; "" where it can."""
    if run.samples.train is None or len(run.samples.train) < 2:
        return "candidates are judged on --data"
    if not run.options.repair:
        return "candidates are judged after repair, which --no-repair leaves out"
    return CalibrationBatches(run.trace, run.samples.train, run.options).obstacle


def _blocks_of(run: Run) -> list[Block]:
    """Return the blocks that may go: whole layers where the configuration is to say what went."""
    if run.trace.training is not None:
        # layers that work in training alone may read what a block gives
        if BLOCK in run.options.prune:
            run.stopwatch.note(
                "no blocks are taken out: the network has layers that work in training alone"
            )
        return []
    blocks = find_blocks(run.trace.program)
    if run.uniform is not None:
        layers = find_layers(run.trace.program)
        blocks = tuple(layer for layer in layers if run.uniform.can_lack(layer))
    return removable(run.network, blocks, run.options.protect)


def _may_weigh(run: Run) -> bool:
    """Return whether scores of groups may be weighed against each other."""
    return layers_compete(run.options) and len(run.scores) > 1


def _look_around(made: Candidates, count: int, tick: Tick) -> None:
    """Make and judge candidates until there are as many as were asked for."""

    def within(done: int, total: int, _: str) -> None:
        part = len(made.seen) + done / max(total, 1)
        tick(math.floor(STEPS * part), STEPS * count, _words(made) if made.seen else "")

    made.progress = within
    for way in _propose(made):
        if len(made.seen) >= count:
            break
        if made.look_at_new(way):
            within(0, 1, "")
    tick(count, count, _words(made))


def _propose(made: Candidates) -> Iterator[Way]:
    """Yield ways to choose, each a change of the best so far.

    A kind of change goes on while it makes the network better; then the next one has its turn.
    """
    yield Way()
    kinds = deque(_kinds_of_changes(made))
    while kinds:
        best, way = made.best[0], next(kinds[0], None)
        if way is None:
            kinds.popleft()
            continue
        yield way
        if made.best[0] == best:
            kinds.rotate(-1)


def _kinds_of_changes(made: Candidates) -> Iterator[Iterator[Way]]:
    options = made.run.options
    if made.blocks:
        yield propose_blocks(made)
    if _may_weigh(made.run):
        # by the clock, with blocks, other measures were no better, and take their turns
        has_measures = scores_are_errors(options) and not made.blocks
        if has_measures:
            yield propose_by_stakes(made)
            if not is_timed(options):  # by the clock widths are corrected, layer against layer
                yield propose_evenness(made)
        if options.search == "auto" and not made.blocks:
            return  # the rest is worth its time where it is asked for
        yield propose_factors(made, options.seed)
        if has_measures:
            yield propose_scoring_again(made)


def _words(made: Candidates) -> str:
    """Return the best candidate as a short line for the terminal."""
    best = made.best[1]
    blocks = f"without {len(best.blocks)} blocks: " if made.blocks else ""
    return f"{blocks}divergence {best.divergence:.4g}"


def _carry_over(run: Run, decision: Decision, made: Candidates) -> tuple[Run, Decision]:
    searched = Search(len(made.blocks), tuple(made.seen.values()))
    way, best = made.best
    if replace(way, aim=None) == Way():
        return run, replace(decision, search=searched)
    chosen_from = made.run_of(way)
    chosen = made.choose(chosen_from, way)
    if best.blocks:
        some = ", ".join(best.blocks)
        run.stopwatch.note(f"{len(best.blocks)} of {searched.of} blocks are taken out: {some}")
    return chosen_from, replace(chosen, goal=decision.goal, search=searched)
