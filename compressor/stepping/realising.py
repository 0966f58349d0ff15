"""Turn a choice into a sliced network; with --keep-class into one that the class can follow."""

from __future__ import annotations

from compressor import slicing
from compressor.errors import CompressorError
from compressor.planning.deciding import Planned, decided


def realised(planned: Planned) -> tuple[Planned, slicing.Sliced]:
    """Slice a choice, and return both.

    With --keep-class what the class cannot follow is protected, and the choice is made again.

    Raises:
        CompressorError: The class cannot be kept.
    """
    keep_class, protected = planned.options.keep_class, list[str]()
    while True:
        sliced = slicing.slice_network(
            planned.trace, planned.network, planned.keep, stand_ins_allowed=not keep_class
        )
        if not keep_class or sliced.plan.form == "class":
            return planned, sliced
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
        planned = decided(planned, planned.goal, protected)


def staged(planned: Planned) -> tuple[Planned, slicing.Sliced]:
    """Slice a choice as `realised` does, as a stage of the run."""
    with planned.stopwatch.stage("slice"):
        return realised(planned)
