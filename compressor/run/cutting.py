"""Turn a choice into a sliced network; with --keep-class into one that the class can follow."""

from __future__ import annotations

from compressor import slicing
from compressor.choose import Amount
from compressor.errors import CompressorError
from compressor.run.decide import Cut, Decision, decide
from compressor.run.opened import Run


def cut(run: Run, decision: Decision) -> Cut:
    """Slice the run's network as was decided.

    With --keep-class what the class cannot follow is protected, and the choice is made again.

    Raises:
        CompressorError: The class cannot be kept.
    """
    keep_class, protected = run.options.keep_class, list[str]()
    while True:
        sliced = slicing.slice_network(
            run.trace, run.network, decision.keep, stand_ins_allowed=not keep_class
        )
        if not keep_class or sliced.plan.form == "class":
            return Cut(decision, sliced)
        stuck = sliced.stuck
        while stuck in protected:
            stuck = stuck.rpartition(".")[0]
        if not stuck:
            raise CompressorError(
                f"the class cannot be kept: {sliced.plan.obstacle}",
                consequence="nothing was written",
                next_step="leave --keep-class out: the same network is delivered in another form",
            )
        protected.append(stuck)
        assert isinstance(decision.goal, Amount)  # with a plan there is no --keep-class
        decision = decide(run, decision.goal, protected, timing=decision.timing)


def cut_as_stage(run: Run, decision: Decision) -> Cut:
    """Slice as `cut` does, as a stage that the watch is told of."""
    with run.stopwatch.stage("slice"):
        return cut(run, decision)
