"""Meet a budget of latency by measuring.

The smaller network is timed against the original, and the choice corrected until what was measured
is what was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch.export import ExportedProgram

from compressor.choose import LATENCY, AtMost, Share
from compressor.errors import CompressorError
from compressor.files.format_table import FORMATS, ONNX, PROGRAM
from compressor.formats import export_onnx
from compressor.formats.job import methods_of
from compressor.formats.original import Original, Runnable, TemporaryFolder
from compressor.options import Options
from compressor.processes import of_the_first
from compressor.run.cutting import cut
from compressor.run.decide import Cut, Decision, decide
from compressor.run.found import ByClock, Measured
from compressor.run.opened import Run
from compressor.run.timing import format_there, time_networks

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
class _Candidate:
    """A network that was timed; `fills` is its time over the time that is asked for."""

    cut: Cut
    measured: Measured
    fills: float


def cut_until_fast(run: Run, decision: Decision, root: Run, goal: Share | AtMost) -> Cut:
    """Return the slowest network found that is as quick as was asked for.

    Args:
        run: The network that is cut.
        decision: A first choice, by predicted latency.
        root: The original's run.
        goal: What is asked for of the original: a share of its time, or milliseconds.

    Raises:
        CompressorError: No choice was quick enough.
    """
    whole_ms = root.before.total(LATENCY)
    asked = 1 - goal.ratio_of(whole_ms)
    predicted = aim = asked * (BELOW + ABOVE) / 2
    if decision.search is not None and decision.search.best.aim is not None:
        predicted *= decision.search.best.aim
    tried: list[_Candidate] = []
    with run.stopwatch.stage("correct by the clock") as tick:
        for number in range(TRIES):
            nearer = AtMost(predicted * whole_ms)
            made = cut(run, decide(run, nearer, best_effort=True, timing=decision.timing))
            if any(made.decision.keep == earlier.cut.decision.keep for earlier in tried):
                break  # the steps of widths are too coarse for a closer one
            kept, program = made.decision.kept, made.sliced.program
            measured = measure(run, program, kept, root.original, whole_ms)
            tick(number + 1, TRIES, measured.words)
            share = measured.share / asked
            fills = measured.after_ms / goal.most if isinstance(goal, AtMost) else share
            tried.append(_Candidate(made, measured, fills))
            if BELOW <= fills <= ABOVE:
                break
            predicted = _next([c.measured for c in tried], aim)
        within = [candidate for candidate in tried if candidate.fills <= ABOVE]
        best = max(within, key=lambda candidate: candidate.fills, default=None)
        tick(TRIES, TRIES, best.measured.words if best is not None else "too slow")
    if best is None:
        raise _too_slow(run, asked, min(c.measured.share for c in tried))
    by_clock = ByClock(best.measured, asked, len(tried))
    done = replace(decision, choice=best.cut.decision.choice, timing=best.cut.decision.timing)
    return replace(best.cut, decision=replace(done, found=by_clock))


def measure(
    run: Run,
    program: ExportedProgram,
    kept: Mapping[str, int],
    original: Original,
    whole_ms: float,
    seconds: float = SECONDS,
) -> Measured:
    """Time a smaller network against the original.

    Args:
        run: The run that it was cut from.
        program: The smaller network.
        kept: How many channels its groups keep.
        original: The network that went in.
        whole_ms: The original's predicted milliseconds.
        seconds: How long all of them are timed for in one look.
    """
    files, name = TemporaryFolder(), format_there(run.options)
    smaller: Runnable = program
    if name == ONNX:
        symbol, route = run.trace.batch_symbol, original.route_of(ONNX)
        routes = None if route is None else (route,)
        smaller = files.path / FORMATS[ONNX].file
        export_onnx(program, smaller, batch_symbol=symbol, routes=routes)
    elif name != PROGRAM:
        methods_of(name).attempt(replace(run.trace, program=program), files.path)
        smaller = files.path / FORMATS[name].file
    before, after, noise = of_the_first(
        lambda: _steadily(original.runnable(name), smaller, run.options, seconds)
    )
    predicted = run.total(LATENCY, kept) / whole_ms
    return Measured(predicted, after / before, before, after, noise)


def _steadily(
    original: Runnable, smaller: Runnable, options: Options, seconds: float
) -> tuple[float, float, float]:
    """Time both networks, and return the steadiest of several measurements.

    Returns:
        The original's and the smaller network's milliseconds, and by which share the original
        differed from itself.
    """
    looks: list[tuple[float, float, float]] = []
    while not looks or (looks[-1][2] > STEADY and len(looks) < LOOKS):
        networks = {"before": original, "after": smaller, "again": original}
        times = time_networks(networks, options, seconds)
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


def _too_slow(run: Run, asked: float, least: float) -> CompressorError:
    less = f"ask for less (--ratio {max(0.0, 1 - least / BELOW):.2f})"
    more = "" if run.options.prune else ", or --prune stream for more groups"
    return CompressorError(
        f"no choice was quick enough: the quickest takes {least:.3f} of the original's time, "
        f"{asked:.3f} was asked for",
        consequence="nothing was written",
        next_step=less + more,
    )
