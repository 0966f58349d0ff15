"""Make smaller networks in several ways, and judge each by what its outputs are.

A candidate loses channels until it meets the budget, is repaired on a part of the calibration
samples, and is judged on samples kept apart: by its outputs, without labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch.export import ExportedProgram

from compressor.choose import AtMost, OutOfReachError, Share
from compressor.choose.budget import search_is_asked_for
from compressor.graph.blocks import Block
from compressor.least_squares import Divergence, Recording, RowCount
from compressor.loading.data import hold_out
from compressor.run.decide import Decision, Keep, choice_of, decide
from compressor.run.found import Candidate, best_of
from compressor.run.halfway import score_again
from compressor.run.opened import Run
from compressor.run.repairing import quiet, refit_program, workspace_of
from compressor.run.without_blocks import take_blocks_out
from compressor.score import Scores
from compressor.score.data import CalibrationBatches, WithoutTargets
from compressor.slicing.program import slice_program
from compressor.watch import Tick

JUDGED_ON = 256
"""About the number of samples that candidates are judged on."""

PART, LEAST, ROWS = 4, 32, RowCount(usual=8_192, per_feature=2)
"""Candidates are repaired on one of PART parts of the calibration samples (LEAST samples at least),
by regressions of few output positions: they are ranked, not delivered, and few rank them alike."""

PASSES = 5
"""About how often a repair computes what the network does of its samples: the original, the smaller
one twice, and second moments."""

WORK, FEWEST = 5e12, 8
"""Multiply-adds of repairing one candidate where nobody asks for a search: about a minute on two
processors. Larger networks are repaired on fewer samples, FEWEST at least; if even these take more,
nothing is searched for."""


@dataclass(frozen=True)
class Way:
    """A way to choose a smaller network.

    Attributes:
        blocks: Names of the blocks that go.
        factors: Pairs of a group and what its scores are multiplied by; others' by 1.
        scored_again: Whether scores are those of the network as it is when half of the way is
            done.
        is_even: Whether each layer loses the same share (`--scope layer`).
        aim: What the goal is multiplied by, so that the measured cost of this very network is what
            was asked for; None: as for all.
    """

    blocks: frozenset[str] = frozenset()
    factors: tuple[tuple[str, float], ...] = ()
    scored_again: bool = False
    is_even: bool = False
    aim: float | None = None


class Candidates:
    """Makes and judges smaller networks of one cost.

    Attributes:
        target: What may be left of the network.
        seen: The candidates so far, by how they were chosen.
        aim: What the goal is multiplied by for all candidates that have no aim of their own, so
            that measured costs are about what was asked for.
        progress: Is told how far the repair of a candidate is.
    """

    def __init__(self, run: Run, goal: Share | AtMost, blocks: Sequence[Block]) -> None:
        """Keep samples apart, and run the original on them.

        Args:
            run: The run of the whole network; its samples are not empty.
            goal: How much is to go.
            blocks: The blocks that may go, in the order of execution.
        """
        assert run.samples.train is not None
        self.run, self.blocks = run, list(blocks)
        self.target = AtMost(goal.left_of(run.total(run.unit)), goal.is_limit)
        train, options = run.samples.train, run.options
        rest, kept = hold_out(train, min(0.25, JUDGED_ON / len(train)), options.seed)
        part = replace(options, calibration=samples_to_repair(run, len(rest)))
        self.data = CalibrationBatches(run.trace, rest, part)
        judged = CalibrationBatches(run.trace, kept, replace(part, augment="none"))
        memory = workspace_of(options).memory
        self.divergence = Divergence(
            *(run.trace.program, lambda: WithoutTargets(judged.batches())),
            *(options.device, memory.walks),
        )
        self.seen: dict[Way, Candidate] = {}
        self.aim = 1.0
        self.progress: Tick = quiet
        self._recording = Recording(
            run.trace.program,
            run.network.aliases,
            lambda: WithoutTargets(self.data.batches()),
            memory.walks,
            options.device,
        )
        self._made: dict[tuple[object, ...], float] = {}
        self._scored_again: Scores | None = None

    @property
    def best(self) -> tuple[Way, Candidate]:
        """Return the candidate that `best_of` names, and how it was chosen."""
        best = best_of(self.seen.values())
        return next((way, made) for way, made in self.seen.items() if made is best)

    def look_at(self, way: Way) -> None:
        """Make and judge the candidate that is chosen in a way; add it to what was seen."""
        self._add(way, self._choose(way))

    def look_at_new(self, way: Way) -> bool:
        """Do as `look_at` where a way leads to a network that was not made yet.

        Returns:
            Whether it does.
        """
        if way in self.seen:
            return False
        chosen = self._choose(way)
        if chosen is not None and _key(way, chosen.keep) in self._made:
            return False
        self._add(way, chosen)
        return True

    def sort(self, names: frozenset[str]) -> list[Block]:
        """Return the blocks of these names in the order of execution."""
        return [block for block in self.blocks if block.name in names]

    def run_of(self, way: Way, *, of_program_alone: bool = False) -> Run:
        """Return the run that a candidate is cut from, with the scores that it is chosen by.

        Args:
            way: How it is chosen.
            of_program_alone: Whether the user's class keeps all blocks.
        """
        run = replace(self.run, scores=self._scores(way))
        if not way.blocks:
            return run
        return take_blocks_out(run, self.sort(way.blocks), of_program_alone=of_program_alone)

    def choose(self, run: Run, way: Way) -> Decision:
        """Choose the channels that a run loses to meet the goal, as a way says."""
        aim = way.aim or self.aim
        target = replace(self.target, most=self.target.most * aim)
        if run.total(run.unit) <= target.most:
            return Decision(target, choice_of(run, {}), run.timing)
        return decide(run, target, scope="layer" if way.is_even else None)

    def _scores(self, way: Way) -> Scores:
        scores = self.run.scores
        if way.scored_again:
            self._scored_again = scores = self._scored_again or self._score_again()
        factors = dict(way.factors)
        return {name: some * factors.get(name, 1.0) for name, some in scores.items()}

    def _score_again(self) -> Scores:
        """Score the network when half of the way is done (as a ratio) and repaired."""
        run = self.run
        before = run.total(run.unit)
        halfway = decide(run, AtMost(math.sqrt(before * self.target.most)), best_effort=True)
        program = self._refit(_slice(run, halfway.keep), run, halfway.keep)
        return score_again(run, halfway.keep, program)

    def slice(self, way: Way) -> tuple[Run, ExportedProgram, dict[str, int]] | None:
        """Slice the network in a way, unrepaired; None where the goal is out of reach.

        Returns:
            The run that is cut from, the smaller program, and how many channels groups keep.
        """
        chosen = self._choose(way)
        if chosen is None:
            return None
        run, keep = chosen
        kept = {name: len(channels) for name, channels in keep.items()}
        return run, _slice(run, keep), kept

    def _choose(self, way: Way) -> _Chosen | None:
        """Return the run and what it keeps; None where the goal is out of reach."""
        blocks = self.sort(way.blocks)
        if len({block.addition for block in blocks}) < len(blocks):
            return None
        try:
            run = self.run_of(way, of_program_alone=True)
            return _Chosen(run, self.choose(run, way).keep)
        except OutOfReachError:
            return None

    def _add(self, way: Way, chosen: _Chosen | None) -> None:
        self.seen[way] = Candidate(
            tuple(block.name for block in self.sort(way.blocks)),
            self._judge(way, chosen),
            factors=dict(way.factors),
            scored_again=way.scored_again,
            is_even=way.is_even,
            aim=way.aim,
        )

    def _judge(self, way: Way, chosen: _Chosen | None) -> float:
        if chosen is None:
            return math.inf
        key = _key(way, chosen.keep)
        if key not in self._made:
            program = self._refit(_slice(*chosen, only_to_run=True), *chosen)
            self._made[key] = self.divergence.of(program)
        return self._made[key]

    def _refit(self, program: ExportedProgram, run: Run, keep: Keep) -> ExportedProgram:
        """Repair a smaller program, in place, on a part of the samples; return it."""
        refit_program(run, program, keep, self.data, self.progress, ROWS, self._recording)
        return program


def samples_to_repair(run: Run, there: int) -> int:
    """Return the number of samples, of those that there are, that a candidate is repaired on.

    Where nobody asks for a search it is 0 if a candidate would take too long.
    """
    samples = min(run.options.calibration, there)
    part = max(min(samples, LEAST), samples // PART)
    if search_is_asked_for(run.options):
        return part
    affordable = math.floor(WORK / (PASSES * run.network.cost.macs()))
    return min(part, affordable) if affordable >= min(part, FEWEST) else 0


class _Chosen(NamedTuple):
    run: Run
    keep: Keep


def _slice(run: Run, keep: Keep, *, only_to_run: bool = False) -> ExportedProgram:
    masks = run.network.masks(keep)
    return slice_program(run.trace, run.network, masks, only_to_run=only_to_run)


def _key(way: Way, keep: Keep) -> tuple[object, ...]:
    return way.blocks, tuple(sorted(keep.items()))
