"""Search which whole blocks go, by what the network's outputs do.

Blocks are ordered by how little the outputs change without each alone, per share of the cost that
it saves. Candidates leave out the first so many of them, then others in the last ones' place. Each
candidate loses channels until it meets the budget, is repaired on a part of the calibration
samples, and is judged on samples kept apart: by their outputs, without labels. The number of
candidates is given, so the same seed finds the same network.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from compressor.choose import AtMost, Goal, OutOfReachError, Share
from compressor.choose.blocks import removable, saved_by
from compressor.choose.budget import blocks_compete
from compressor.choose.kinds import BLOCK
from compressor.graph.blocks import Block, find_blocks
from compressor.least_squares import Divergence
from compressor.loading.data import hold_out
from compressor.processes import each_alone
from compressor.run.decide import Decision, choice_of, decide
from compressor.run.found import Candidate, Search
from compressor.run.opened import Run
from compressor.run.repairing import refit_program
from compressor.run.without_blocks import take_blocks_out
from compressor.score.data import CalibrationBatches, WithoutTargets
from compressor.slicing.program import slice_program
from compressor.watch import Tick

CANDIDATES = 12
"""How many candidates are made where the options do not say."""

JUDGED_ON = 256
"""About the number of samples that candidates are judged on."""

PART = 4
"""Candidates are repaired on one of so many parts of the calibration samples."""


def search_blocks(run: Run, decision: Decision) -> tuple[Run, Decision]:
    """Return the run and the choice with the blocks gone that are best left out.

    What is given is returned where no block may go, or none does.
    """
    goal, options = decision.goal, run.options
    if not isinstance(goal, Share | AtMost) or not blocks_compete(options):
        return run, decision
    is_asked_for = BLOCK in options.prune
    if run.samples.train is None and not is_asked_for:
        return run, decision
    obstacle = _obstacle(run)
    blocks = [] if obstacle else _blocks_of(run)
    if not blocks:
        if is_asked_for:
            why = obstacle or "the network has none that may go"
            run.stopwatch.note(f"no blocks are taken out: {why}")
        return run, decision
    count = CANDIDATES if options.search == "auto" else options.search
    with run.stopwatch.stage("search which blocks go") as tick, each_alone():
        best = _Search(run, goal, blocks, count, tick)
        best.look_around()
        tick(count, count, best.words)
    return _carry_over(run, decision, best)


def may_search(run: Run) -> bool:
    """Return whether the options let blocks go, and there are data to choose them on."""
    return blocks_compete(run.options) and run.samples.train is not None


def _obstacle(run: Run) -> str:
    """Return in words why no block can be taken out; "" where they can."""
    if run.samples.train is None or len(run.samples.train) < 2:
        return "they are chosen on --data"
    if run.trace.training is not None:
        return "the network has layers that work in training alone"
    if not run.options.repair:
        return "what they did is made up for by repair, which --no-repair leaves out"
    return CalibrationBatches(run.trace, run.samples.train, run.options).obstacle


def _blocks_of(run: Run) -> list[Block]:
    return removable(run.network, find_blocks(run.trace.program), run.options.protect)


def _carry_over(run: Run, decision: Decision, search: _Search) -> tuple[Run, Decision]:
    found = search.found
    if not found.blocks:
        return run, replace(decision, search=found)
    shorter = take_blocks_out(run, search.sort(found.blocks))
    made = search.choose(shorter)
    some = ", ".join(found.blocks)
    run.stopwatch.note(f"{len(found.blocks)} of {len(search.blocks)} blocks are taken out: {some}")
    return shorter, replace(made, goal=decision.goal, search=found)


class _Search:
    """The candidates of one network, and the best of them."""

    def __init__(
        self, run: Run, goal: Goal, blocks: Sequence[Block], count: int, tick: Tick
    ) -> None:
        assert isinstance(goal, Share | AtMost) and run.samples.train is not None
        self.run, self.blocks, self.count, self.tick = run, list(blocks), count, tick
        self.target = AtMost(goal.left_of(run.total(run.unit)), _is_limit(goal))
        train, options = run.samples.train, run.options
        share = min(0.25, JUDGED_ON / len(train))
        rest, kept = hold_out(train, share, options.seed)
        part = replace(options, calibration=max(1, options.calibration // PART))
        self.data = CalibrationBatches(run.trace, rest, part)
        judged = CalibrationBatches(run.trace, kept, replace(part, augment="none"))
        self.divergence = Divergence(
            run.trace.program, lambda: WithoutTargets(judged.batches()), options.device
        )
        self.seen: dict[frozenset[str], Candidate] = {}
        self.order = self._order()

    def look_around(self) -> None:
        """Make and judge candidates until there are as many as were asked for."""
        for names in self._proposals():
            if len(self.seen) >= self.count:
                return
            if names not in self.seen:
                self.seen[names] = self._judge(names)
                self.tick(len(self.seen), self.count, self.words)

    @property
    def best(self) -> Candidate:
        """Return the candidate with the least divergence, of equal ones that with fewest blocks."""
        return min(self.seen.values(), key=lambda c: (c.divergence, len(c.blocks)))

    @property
    def found(self) -> Search:
        """Return what was tried, with the best first known by its blocks."""
        return Search(self.best.blocks, len(self.blocks), tuple(self.seen.values()))

    @property
    def words(self) -> str:
        """Return the best candidate as a short line for the terminal."""
        best = self.best
        return f"without {len(best.blocks)} blocks: divergence {best.divergence:.4g}"

    def sort(self, names: Sequence[str]) -> list[Block]:
        """Return the blocks of these names in the order of execution."""
        return [block for block in self.blocks if block.name in names]

    def choose(self, shorter: Run) -> Decision:
        """Choose the channels of a network without some blocks that meet the goal."""
        if shorter.total(shorter.unit) <= self.target.most:
            return Decision(self.target, choice_of(shorter, {}), shorter.timing)
        return decide(shorter, self.target)

    def _order(self) -> list[Block]:
        """Return the blocks by the divergence without each, per share of the cost that it saves."""
        run, clock = self.run, self.run.timing.clock
        alone = self.divergence.without(self.blocks)
        saved = [saved_by(run.network, block, run.unit, clock) for block in self.blocks]
        prices = [d / s if s > 0 else math.inf for d, s in zip(alone, saved, strict=True)]
        ranked = sorted(zip(prices, range(len(prices)), strict=True))
        return [self.blocks[number] for price, number in ranked if math.isfinite(price)]

    def _proposals(self) -> Iterator[frozenset[str]]:
        """Yield sets of blocks to leave out: more and more of them, then changes of the best."""
        yield frozenset()
        size, worse = 1, 0
        while size <= len(self.order) and worse < 2:
            before = self.best.divergence
            yield self._first(size)
            worse = worse + 1 if self.best.divergence >= before else 0
            size *= 2
        while True:
            tried = len(self.seen)
            best = frozenset(self.best.blocks)
            for changed in self._changes(best):
                yield changed
                if frozenset(self.best.blocks) != best:
                    break
            if len(self.seen) == tried:
                return

    def _changes(self, best: frozenset[str]) -> Iterator[frozenset[str]]:
        """Yield sets near the best one: one more, one less, and one in another's place."""
        inside = [block.name for block in self.order if block.name in best]
        outside = [block.name for block in self.order if block.name not in best]
        yield from (best | {name} for name in outside[:2])
        yield from (best - {name} for name in inside[:-3:-1])
        for out in inside[::-1]:
            for other in outside[:3]:
                yield best - {out} | {other}

    def _first(self, size: int) -> frozenset[str]:
        """Return the first blocks in order, without those whose addition another one takes."""
        taken: dict[str, str] = {}
        for block in self.order:
            if len(taken) < size:
                taken.setdefault(block.addition, block.name)
        return frozenset(taken.values())

    def _judge(self, names: frozenset[str]) -> Candidate:
        blocks = self.sort(tuple(names))
        ordered = tuple(block.name for block in blocks)
        if len({block.addition for block in blocks}) < len(blocks):
            return Candidate(ordered, math.inf)
        run = self.run
        if blocks:
            run = take_blocks_out(run, blocks, of_program_alone=True)
        try:
            keep = self.choose(run).keep
        except OutOfReachError:
            return Candidate(ordered, math.inf)
        program = slice_program(run.trace, run.network, run.network.masks(keep))
        refit_program(run, program, keep, self.data)
        return Candidate(ordered, self.divergence.of(program))


def _is_limit(goal: Share | AtMost) -> bool:
    return isinstance(goal, AtMost) and goal.is_limit
