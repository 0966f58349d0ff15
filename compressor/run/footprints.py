"""Count and time a result against the original: what each of them costs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from compressor.causes import first_line
from compressor.choose.budget import is_timed
from compressor.errors import CompressorError
from compressor.files.folder import LAYERS, SCRIPT, size_of
from compressor.files.format_table import FORMATS, ONNX, is_run
from compressor.formats.job import Outcome
from compressor.formats.original import Runnable
from compressor.formats.verifying import cut_to_one
from compressor.graph.costs import Costs, NetworkForm, costs_of
from compressor.graph.programs.beginning import end_after
from compressor.graph.second_count import SecondCount, count_again
from compressor.latency import layers_of, portable_layers
from compressor.latency.networks import Timed, measure_eager, measure_turns
from compressor.latency.on_host import networks_on
from compressor.latency.operators import Operator, profile
from compressor.latency.statistics import Speedup, speedup_of
from compressor.machine import cores
from compressor.processes import of_the_first
from compressor.records import Latency
from compressor.report import noisy_words
from compressor.run.format_timing import formats_with_a_runtime, time_files
from compressor.run.opened import Run
from compressor.run.timing import by_torch, turns
from compressor.runtimes.providers import PROVIDERS
from compressor.slicing import Sliced

LATENCY_SECONDS = 3.0
"""How long, in seconds, all networks together are timed for each number of threads."""


@dataclass(frozen=True)
class Footprint:
    """What a network costs, measured or counted.

    Attributes:
        costs: Its parameters and multiply-adds.
        second_count: Its multiply-adds, counted independently.
        latency: The time of a call, in milliseconds, in each way in which it was timed.
        size_bytes: Bytes of its ONNX file; 0 where there is none.
        operators: Its operators with their times; empty where there is no ONNX file.
    """

    costs: Costs
    second_count: SecondCount
    latency: tuple[Latency, ...]
    size_bytes: int = 0
    operators: tuple[Operator, ...] = ()


Counts = tuple[tuple[Costs, SecondCount], tuple[Costs, SecondCount]]
"""What the original and the result cost, counted twice."""
States = tuple[Footprint, Footprint, tuple[Speedup, ...]]


def count_both(run: Run, sliced: Sliced) -> Counts:
    """Count the original and the result, by the equations and independently; note what differs."""
    whole = run.before.trace
    original = NetworkForm(whole.module, whole.program, {})
    result = NetworkForm(sliced.module, sliced.program, sliced.plan.kept)
    first, last = (
        (costs_of(of.trace, of.network, form), count_again(of.trace, of.network, form))
        for of, form in ((run.before, original), (run, result))
    )
    if first[1].left_out:
        run.stopwatch.note(
            f"the independent count of MACs leaves out {', '.join(first[1].left_out)}, of which it "
            "has no formula; the equations have the operator's rule"
        )
    for which, (costs, again) in (("original", first), ("result", last)):
        if again.contradicts(costs.macs):
            run.stopwatch.note(
                f"the equations count {costs.macs} MACs for the {which}, an independent count "
                f"{again.macs}: one of them is wrong; please report the network"
            )
    return first, last


def time_both(
    run: Run, sliced: Sliced, formats: Mapping[str, Outcome], folder: Path, counts: Counts
) -> States:
    """Time both networks by ONNX Runtime, else by PyTorch, and by what further formats are for.

    Nothing is timed where only formats are asked for that nothing here runs.

    Args:
        run: The run.
        sliced: The result.
        formats: What came of writing it in each format.
        folder: Holds its files, and gets what times them on other machines.
        counts: What both cost.
    """
    if formats and not is_run(formats):
        return Footprint(*counts[0], ()), Footprint(*counts[1], ()), ()
    if ONNX in formats and formats[ONNX].is_there:
        states = _by_onnx(run, sliced, folder, counts)
    else:
        states = _by_torch(run, sliced, counts)
    return _by_their_runtimes(run, formats, folder, states)


def _by_onnx(run: Run, sliced: Sliced, folder: Path, counts: Counts) -> States:
    """Time both networks as ONNX Runtime runs them, and write what times them on other machines."""
    stopwatch, before, after = run.stopwatch, run.original.onnx, folder / FORMATS[ONNX].file
    _for_other_machines(run, before, folder)
    files = {"before": before, "after": after}
    found = _latency(files, measure_turns, _ways(run), run)
    latency, speedups = _with_target(found, sliced, run, files)
    with stopwatch.stage("time each layer"):
        operators = of_the_first(lambda: _profile(files, run))
    first, last = (
        Footprint(*counts[i], tuple(latency[name]), size_of(path), tuple(operators[i]))
        for i, (name, path) in enumerate(files.items())
    )
    return first, last, speedups


def _by_torch(run: Run, sliced: Sliced, counts: Counts) -> States:
    """Time both networks as PyTorch runs them, layer by layer as they are called."""
    if is_timed(run.options):
        run.stopwatch.note(
            "the budget is of the time that ONNX Runtime takes; without an ONNX file among the "
            "formats, the times below are PyTorch's"
        )
    traced, modules = run.trace, {"before": run.original.module, "after": sliced.module}
    examples = traced.examples if traced.batch_symbol is None else cut_to_one(traced.examples)
    samples = 1 if traced.batch_symbol is not None else traced.batch
    ways = [(threads, samples, "cpu") for threads in sorted({1, cores()})]
    with ExitStack() as stack:
        for module in modules.values():
            stack.enter_context(end_after(module, traced.ends_after))
        timing = partial(measure_eager, args=examples.args, kwargs=examples.kwargs)
        try:
            found = _latency(modules, timing, ways, run)
        except Exception as error:  # whatever the network's code raises
            words = f"not timed, since a call of one sample fails: {first_line(error)}"
            run.stopwatch.note(words)
            return Footprint(*counts[0], ()), Footprint(*counts[1], ()), ()
    latency, speedups = _with_target(found, sliced, run)
    first, last = (Footprint(*counts[i], tuple(latency[name])) for i, name in enumerate(modules))
    return first, last, speedups


def _by_their_runtimes(
    run: Run, formats: Mapping[str, Outcome], folder: Path, states: States
) -> States:
    """Add what further formats take in the runtimes that they are for."""
    before, after, speedups = states
    there = tuple(name for name, outcome in formats.items() if outcome.is_there)
    for name in formats_with_a_runtime(there):
        files = {"before": run.original.file_of(name), "after": folder / FORMATS[name].file}
        ways = [(threads, 1, "cpu") for threads in sorted({1, cores()})]
        if run.options.latency_on == name and _is_timed_there(run):
            ways.append((run.options.threads, run.options.batch, "cpu"))
        timing = partial(time_files, name)
        found, further = _latency(files, timing, list(dict.fromkeys(ways)), run)
        before, after = (
            replace(each, latency=(*each.latency, *found[when]))
            for each, when in ((before, "before"), (after, "after"))
        )
        speedups = (*speedups, *further)
    return before, after, speedups


def _for_other_machines(run: Run, original: Path, folder: Path) -> None:
    """Write what times both networks and the original's layers on a machine without this package.

    That is a script, the layers, and the original, unless its weights do not fit into one file.
    """
    script = resources.files("compressor.report") / "templates" / SCRIPT
    (folder / SCRIPT).write_text(script.read_text(encoding="utf-8"), encoding="utf-8")
    if not original.with_name(f"{original.name}.data").exists():
        shutil.copyfile(original, folder / FORMATS[ONNX].original)
    traced, table = run.before.trace, run.timing.table
    batch = traced.batch if traced.batch_symbol is None else run.options.batch
    layers = layers_of(traced, run.before.network, batch)
    steps = table.steps if table is not None else {}
    (folder / LAYERS).write_bytes(portable_layers(layers, steps, batch))


_Way = tuple[int, int, str]
"""A way to time a network: threads, samples in a call, device."""


def _ways(run: Run) -> list[_Way]:
    """Return the ways to time networks: one thread and all, one sample each, and the budget's."""
    options = run.options
    ways = [(threads, 1, "cpu") for threads in sorted({1, cores()})]
    if _is_timed_there(run) and options.latency_on in PROVIDERS and options.host is None:
        ways.append((options.threads, options.batch, options.latency_on))
    return list(dict.fromkeys(ways))


def _is_timed_there(run: Run) -> bool:
    """Return whether networks can be timed where a budget of latency is for."""
    return run.timing.clock is not None and run.timing.can_check


_Found = tuple[dict[str, list[Latency]], tuple[Speedup, ...]]
"""Latencies of both networks, and how much faster the smaller one is, each by way."""


def _with_target(
    found: _Found, sliced: Sliced, run: Run, files: Mapping[str, Path] | None = None
) -> _Found:
    """Add what the budget's target takes, if it is PyTorch's or another machine's.

    Args:
        found: What was timed by ONNX Runtime, or as PyTorch runs modules, on this machine.
        sliced: The result.
        run: The run.
        files: Both networks' ONNX files, which another machine runs; None where there are none.
    """
    if run.options.host is not None:
        return found if files is None else _on_host(found, files, run)
    if not by_torch(run.options) or not _is_timed_there(run):
        return found
    programs: dict[str, Runnable] = {"before": run.original.program, "after": sliced.program}
    return _joined(found, _on_target(programs, run))


def _on_host(found: _Found, files: Mapping[str, Path], run: Run) -> _Found:
    """Put what another machine takes first; where it is gone by now, note it."""
    try:
        return _joined(_on_target(files, run), found)
    except CompressorError as error:
        run.stopwatch.note(f"the result was not timed on {run.options.on}: {error.what}")
        return found


def _on_target(networks: Mapping[str, Runnable], run: Run) -> _Found:
    options = run.options
    way = (options.threads, options.batch, options.latency_on)

    def timing(networks: Mapping[str, Any], *, seconds: float, **_: Any) -> dict[str, Timed]:
        return turns(networks, options, seconds)

    return _latency(networks, timing, [way], run)


def _joined(first: _Found, second: _Found) -> _Found:
    (latency, speedups), (more, further) = first, second
    return {name: latency[name] + more[name] for name in latency}, speedups + further


def _profile(files: Mapping[str, Path], run: Run) -> list[list[Operator]]:
    """Return both networks' operators with their times on the target, if it is another machine."""
    if run.options.host is not None:
        try:
            with networks_on(run.options.host, files) as there:
                return [there.profile(name) for name in files]
        except CompressorError as error:
            run.stopwatch.note(f"layers were timed here, not on {run.options.on}: {error.what}")
    return [profile(path) for path in files.values()]


def _latency(
    networks: Mapping[str, Any],
    timing: Callable[..., dict[str, Timed]],
    ways: list[_Way],
    run: Run,
) -> tuple[dict[str, list[Latency]], tuple[Speedup, ...]]:
    """Time the networks in each way, and return their latencies and the speedups, per way.

    Both networks, and the original once more, take turns; the original's second turn shows how far
    it differs from itself, which is the noise.
    """
    found: dict[str, list[Latency]] = {"before": [], "after": []}
    speedups = []
    turns, seconds = {**networks, "again": networks["before"]}, LATENCY_SECONDS
    with run.stopwatch.stage("measure latency") as tick:
        for done, (threads, batch, device) in enumerate(ways):
            tick(done, len(ways), f"{threads} threads" if threads > 1 else "1 thread")
            asked = {"threads": threads, "batch": batch, "device": device, "seconds": seconds}
            measured = of_the_first(partial(timing, turns, **asked))
            for name, latencies in found.items():
                latencies.append(measured[name].latency)
            original, smaller, again = (measured[name].turns for name in turns)
            speedups.append(speedup_of(original, smaller, again))
        tick(len(ways), len(ways), "")
    for way, speedup in zip(found["before"], speedups, strict=True):
        if speedup.is_noisy:
            run.stopwatch.note(noisy_words(asdict(way), asdict(speedup)))
    return found, tuple(speedups)
