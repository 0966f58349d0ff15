"""Meet a budget of latency by measuring.

The smaller network is timed against the original, and the choice corrected until what was measured
is what was asked for.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from compressor.errors import CompressorError
from compressor.export import export_onnx
from compressor.options import Options
from compressor.planning.deciding import Goal, Planned, decided
from compressor.planning.original import Original, Runnable, TemporaryFolder
from compressor.planning.preparing import LATENCY
from compressor.planning.timing import by_torch, timed
from compressor.processes import of_the_first
from compressor.slicing import Sliced
from compressor.stepping.realising import realised

SECONDS = 3.0
"""Seconds that each candidate is timed for against the original."""

LOOKS, STEADY = 3, 0.01
"""A candidate is timed up to `LOOKS` times, while the original differs from itself by more than
`STEADY`."""

TRIES = 8
BELOW, ABOVE = 0.95, 0.995
"""A measured time may be between these shares of what is asked for: later measurements differ a
little."""


@dataclass(frozen=True)
class Measured:
    """The measured times of one candidate.

    Attributes:
        predicted: Its predicted share of the original's time.
        share: Its measured share of the original's time.
        before_ms: The original's time, in milliseconds.
        after_ms: The candidate's time, in milliseconds.
        noise: By which share the original differed from itself.
    """

    predicted: float
    share: float
    before_ms: float
    after_ms: float
    noise: float

    @property
    def words(self) -> str:
        return (
            f"{self.after_ms:.3g} of {self.before_ms:.3g} ms, {self.share:.3f} "
            f"(noise {self.noise:.1%})"
        )


@dataclass(frozen=True)
class _Candidate:
    """A network that was timed; `fills` is its time over the time that is asked for."""

    planned: Planned
    sliced: Sliced
    measured: Measured
    fills: float


def corrected(planned: Planned, root: Planned) -> tuple[Planned, Sliced]:
    """Return the slowest network found that is as quick as was asked for.

    Args:
        planned: A first choice, by predicted latency.
        root: The original with the goal: a share of its time, or milliseconds.

    Raises:
        CompressorError: No choice was quick enough.
    """
    assert root.goal.ratio is not None
    asked, whole_ms = 1 - root.goal.ratio, root.total(LATENCY)
    predicted = aim = asked * (BELOW + ABOVE) / 2
    tried: list[_Candidate] = []
    with planned.stopwatch.stage("correct by the clock") as tick:
        for number in range(TRIES):
            goal = Goal(1 - predicted * whole_ms / planned.total(LATENCY), predicted * whole_ms)
            choice, sliced = realised(decided(planned, goal, best_effort=True))
            if any(choice.keep == earlier.planned.keep for earlier in tried):
                break  # the steps of widths are too coarse for a closer one
            measured = _measured(choice, sliced, root.original, whole_ms)
            tick(number + 1, TRIES, measured.words)
            most = root.goal.most
            fills = measured.share / asked if most is None else measured.after_ms / most
            tried.append(_Candidate(choice, sliced, measured, fills))
            if BELOW <= fills <= ABOVE:
                break
            predicted = _next([c.measured for c in tried], aim)
        within = [candidate for candidate in tried if candidate.fills <= ABOVE]
        best = max(within, key=lambda candidate: candidate.fills, default=None)
        tick(TRIES, TRIES, best.measured.words if best is not None else "too slow")
    if best is None:
        raise _too_slow(planned, asked, min(c.measured.share for c in tried))
    found = {"measured": {**asdict(best.measured), "asked": asked, "tries": len(tried)}}
    return replace(best.planned, goal=planned.goal, found=found), best.sliced


def _measured(planned: Planned, sliced: Sliced, original: Original, whole_ms: float) -> Measured:
    files, by_pytorch = TemporaryFolder(), by_torch(planned.options)
    smaller: Runnable = sliced.program if by_pytorch else files.path / "model.onnx"
    if isinstance(smaller, Path):
        symbol = planned.trace.batch_symbol
        export_onnx(sliced.program, smaller, batch_symbol=symbol, ways=(original.way,))
    before, after, noise = of_the_first(
        lambda: _steadily(original.runnable(by_pytorch), smaller, planned.options)
    )
    predicted = planned.total(LATENCY, planned.kept) / whole_ms
    return Measured(predicted, after / before, before, after, noise)


def _steadily(
    original: Runnable, smaller: Runnable, options: Options
) -> tuple[float, float, float]:
    """Time both networks, and return the steadiest of several measurements.

    Returns:
        The original's and the smaller network's milliseconds, and by which share the original
        differed from itself.
    """
    looks: list[tuple[float, float, float]] = []
    while not looks or (looks[-1][2] > STEADY and len(looks) < LOOKS):
        networks = {"before": original, "after": smaller, "again": original}
        times = timed(networks, options, SECONDS)
        before, after, again = (times[name].own_ms for name in networks)
        whole = (before + again) / 2
        looks.append((whole, after, abs(before - again) / whole))
    return min(looks, key=lambda look: look[2])


def _next(tried: list[Measured], aim: float) -> float:
    """Return the prediction to ask for next.

    It is interpolated between the nearest candidates on both sides of the aim, else in proportion
    to the nearest one.
    """
    slower = min((t for t in tried if t.share > aim), key=lambda t: t.share, default=None)
    faster = max((t for t in tried if t.share <= aim), key=lambda t: t.share, default=None)
    if slower is not None and faster is not None and slower.predicted > faster.predicted:
        weight = (aim - faster.share) / (slower.share - faster.share)
        return faster.predicted + weight * (slower.predicted - faster.predicted)
    nearest = min(tried, key=lambda t: abs(t.share - aim))
    return nearest.predicted * aim / nearest.share


def _too_slow(planned: Planned, asked: float, least: float) -> CompressorError:
    less = f"ask for less (--ratio {max(0.0, 1 - least / BELOW):.2f})"
    more = "" if planned.options.prune else ", or --prune stream for more groups"
    return CompressorError(
        f"no choice was quick enough: the quickest takes {least:.3f} of the original's time, "
        f"{asked:.3f} was asked for",
        consequence="nothing was written",
        next_step=less + more,
    )
