"""Propose ways to choose a smaller network, each a change of the best one so far."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from compressor.choose.blocks import saved_by
from compressor.graph.blocks import Block
from compressor.least_squares import stakes
from compressor.run.candidates import Candidates, Way
from compressor.run.repairing import workspace_of
from compressor.score.data import WithoutTargets

SPREAD = 0.5
"""The standard deviation of the logarithm that a group's scores are multiplied by at first."""

BOLDER, SHYER = 1.2, 0.97
"""What the spread is multiplied by after a change for the better, and after another one."""

CHANGED, LEAST_CHANGED = 0.2, 3
"""The share of groups that one proposal weighs anew, and their least number."""

MISSES = 64
"""Proposals in a row that lead to known networks, after which no more are made."""


def propose_factors(made: Candidates, seed: int) -> Iterator[Way]:
    """Yield the best way with some groups' scores multiplied by numbers drawn at random.

    A (1+1) evolution strategy: changes grow after one that was for the better, and shrink after
    others (cf. SPDY, Frantar and Alistarh 2022, which draws coefficients of layers' errors).
    """
    generator, spread = np.random.default_rng(seed), SPREAD
    names = list(made.run.scores)
    count = min(len(names), max(LEAST_CHANGED, round(CHANGED * len(names))))
    misses = 0
    while misses < MISSES:
        tried, (way, before) = len(made.seen), made.best
        factors = dict(way.factors)
        for number in generator.choice(len(names), count, replace=False):
            drawn = math.exp(spread * generator.normal())
            factors[names[number]] = factors.get(names[number], 1.0) * drawn
        yield replace(way, factors=tuple(sorted(factors.items())))
        misses = misses + 1 if len(made.seen) == tried else 0
        spread *= BOLDER if made.best[1].divergence < before.divergence else SHYER


def propose_by_stakes(made: Candidates) -> Iterator[Way]:
    """Yield, once, the best way with groups' scores multiplied by what the outputs have at stake.

    Errors of a layer are shares of what it gives. Where layers matter to the outputs in very
    different degree, as in branches that are summed or gate others, shares alone mislead.
    """
    run = made.run
    factors = stakes(
        *(run.trace, run.network, WithoutTargets(made.data.batches())),
        workspace_of(run.options),
    )
    yield replace(made.best[0], factors=tuple(sorted(factors.items())))


def propose_evenness(made: Candidates) -> Iterator[Way]:
    """Yield, once, the best way with the same share taken off each layer.

    Errors of different layers are not compared then, which is right where they cannot be.
    """
    yield replace(made.best[0], factors=(), is_even=True)


def propose_scoring_again(made: Candidates) -> Iterator[Way]:
    """Yield, once, the best way with scores of the network as it is when half of it is done."""
    yield replace(made.best[0], scored_again=True)


def propose_blocks(made: Candidates) -> Iterator[Way]:
    """Yield ways that leave out more and more blocks, then the best way with one changed.

    Where the goal is out of reach with the first ones, more go until it is not.
    """
    order = _order(made)
    size, worse = 1, 0
    while size <= len(order) and worse < 2:
        before = made.best[1].divergence
        yield replace(made.best[0], blocks=_first(order, size))
        is_worse = made.best[1].divergence >= before and math.isfinite(before)
        worse = worse + 1 if is_worse else 0
        size *= 2
    if math.isinf(made.best[1].divergence):
        yield replace(made.best[0], blocks=_first(order, len(order)))
    while True:
        tried, (best, _) = len(made.seen), made.best
        for changed in _changes(order, best.blocks):
            yield replace(made.best[0], blocks=changed)
            if made.best[0].blocks != best.blocks:
                break
        if len(made.seen) == tried:
            return


def _order(made: Candidates) -> list[Block]:
    """Return the blocks by the divergence without each, per share of the cost that it saves."""
    run, clock = made.run, made.run.timing.clock
    alone = made.divergence.without(made.blocks)
    saved = [saved_by(run.network, block, run.unit, clock) for block in made.blocks]
    prices = [d / s if s > 0 else math.inf for d, s in zip(alone, saved, strict=True)]
    ranked = sorted(zip(prices, itertools.count()))
    return [made.blocks[number] for price, number in ranked if math.isfinite(price)]


def _first(order: Sequence[Block], size: int) -> frozenset[str]:
    """Return the first blocks in order, without those whose addition another one takes."""
    taken: dict[str, str] = {}
    for block in order:
        if len(taken) < size:
            taken.setdefault(block.addition, block.name)
    return frozenset(taken.values())


def _changes(order: Sequence[Block], best: frozenset[str]) -> Iterator[frozenset[str]]:
    """Yield sets near the best one: one more, one less, and one in another's place."""
    inside = [block.name for block in order if block.name in best]
    outside = [block.name for block in order if block.name not in best]
    yield from (best | {name} for name in outside[:2])
    yield from (best - {name} for name in inside[:-3:-1])
    for out in inside[::-1]:
        for other in outside[:3]:
            yield best - {out} | {other}
