"""Write the files of a result into a temporary folder, and verify and measure them."""

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
from compressor.files.folder import LAYERS, PLAN, REPORT, SCRIPT, TRAINING, WEIGHTS, size_of
from compressor.files.format_table import FORMATS, ONNX
from compressor.files.integrity import hashes_of
from compressor.formats import save_weights
from compressor.formats.job import Job, Outcome, write_format
from compressor.formats.original import Runnable, TemporaryFolder, missing
from compressor.formats.provenance import provenance
from compressor.formats.verifying import cut_to_one, real_inputs
from compressor.graph.costs import Costs, NetworkForm, costs_of
from compressor.graph.programs.beginning import end_after
from compressor.graph.second_count import SecondCount, count_again
from compressor.latency import layers_of, portable_layers
from compressor.latency.networks import Timed, measure_eager, measure_turns
from compressor.latency.operators import Operator, profile
from compressor.latency.statistics import Speedup, speedup_of
from compressor.loading.plain import name_of
from compressor.onnx_runtime import cores
from compressor.processes import of_the_first
from compressor.records import Latency, Plan
from compressor.report import noisy_words, to_html, to_json, to_markdown
from compressor.run.opened import Run
from compressor.run.timing import by_torch, turns
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


@dataclass(frozen=True)
class Delivery:
    """The files of a result, and what was found when they were verified and timed.

    Attributes:
        files: The temporary folder that holds them.
        plan: The plan as it was written.
        formats: Per format what came of it.
        before: The original's costs.
        after: The result's costs.
        speedups: Per latency how many times less time the result takes than the original.
    """

    files: TemporaryFolder
    plan: Plan
    formats: Mapping[str, Outcome]
    before: Footprint
    after: Footprint
    speedups: tuple[Speedup, ...]

    @property
    def is_hardly_faster(self) -> bool:
        """Return whether one thread gains less than a tenth, as far as times can tell."""
        if not self.after.latency:
            return False
        hardly = self.after.latency[0].own_ms > 0.9 * self.before.latency[0].own_ms
        return hardly and not self.speedups[0].is_noisy

    def hashes(self) -> dict[str, str]:
        """Compute the SHA-256 of each file that the report answers for, by name."""
        return hashes_of(self.files.path)

    def write_report(self, report: Mapping[str, Any]) -> None:
        """Write the report as JSON, Markdown and HTML, and a picture of the training, if any."""
        pages = {REPORT: to_json, "report.md": to_markdown, "report.html": to_html}
        for name, text_of in pages.items():
            (self.files.path / name).write_text(text_of(report), encoding="utf-8")
        if any("training" in step for step in report["recovery"]):
            # the plots' library takes longer to import than a small network takes to compress
            from compressor.report.training_picture import draw_trainings

            (metric,) = [*report["before"]["metrics"], "metric"][:1]
            draw_trainings(report["recovery"], metric, self.files.path / TRAINING)


def deliver(run: Run, sliced: Sliced) -> Delivery:
    """Write the result in the formats asked for, verify each, and time it against the original.

    What cannot be written, or computes something else, is noted and left out.
    """
    traced, stopwatch, files = run.trace, run.stopwatch, TemporaryFolder()
    with stopwatch.stage("write weights and plan"):
        loaded = run.loaded
        types = {name: name_of({name: dtype}) for name, dtype in loaded.types.items()}
        aliases = _aliases(run, sliced, files.path)
        parametrised = run.options.keep_parametrisations
        plan = replace(sliced.plan, aliases=aliases, types=types, parametrised=parametrised)
        (files.path / PLAN).write_text(plan.to_json(), encoding="utf-8")
    with stopwatch.stage("count"):
        counts = _counts(run, sliced)
    some = run.samples.train or run.samples.test
    macs = counts[0][0].macs, counts[1][0].macs
    job = Job(
        *(sliced.program, traced, files.path),
        metadata=provenance(source=run.loaded.sha256, plan=plan.to_json(), macs=macs),
        real=real_inputs(some, traced, stopwatch.note),
        module=sliced.module,
    )
    names: tuple[str, ...] = run.options.format
    formats = {name: _format(run, name, job) for name in names}
    if ONNX in formats and formats[ONNX].is_there:
        before, after, speedups = _by_onnx(run, sliced, files.path, counts)
    else:
        before, after, speedups = _by_torch(run, sliced, counts)
    return Delivery(files, plan, formats, before, after, speedups)


def _counts(run: Run, sliced: Sliced) -> _Counts:
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


def _aliases(run: Run, sliced: Sliced, folder: Path) -> dict[str, str]:
    """Write the weights as safetensors, and return the aliases: tied tensors are stored once each.

    What safetensors has no room for is noted.
    """
    try:
        path, types = folder / WEIGHTS, run.loaded.stored
        return save_weights(sliced.module, path, sliced.plan.aliases, types=types)
    except CompressorError as error:
        run.stopwatch.note(
            f"no {WEIGHTS} is delivered, without which compressor.load cannot rebuild the "
            f"class: {error.what}"
        )
        return dict(sliced.plan.aliases)


def _format(run: Run, name: str, job: Job) -> Outcome:
    """Write one format, unless the original could not be written in it; note what is not usual."""
    original, stopwatch = run.original, run.stopwatch
    if name in original.unwritable:
        return Outcome(reason=original.unwritable[name])
    with stopwatch.stage(f"write and verify {name}"):
        outcome = write_format(name, replace(job, first=original.route_of(name)))
    if not outcome.is_there:
        stopwatch.note(f"{missing(name)}, though the original's can be written: {outcome.reason}")
    elif outcome.how:
        stopwatch.note(f"the {name} file: {outcome.how}")
    return outcome


_Counts = tuple[tuple[Costs, SecondCount], tuple[Costs, SecondCount]]
"""What the original and the result cost, counted twice."""
_States = tuple[Footprint, Footprint, tuple[Speedup, ...]]


def _by_onnx(run: Run, sliced: Sliced, folder: Path, counts: _Counts) -> _States:
    """Time both networks as ONNX Runtime runs them, and write what times them on other machines."""
    stopwatch, before, after = run.stopwatch, run.original.onnx, folder / FORMATS[ONNX].file
    _for_other_machines(run, before, folder)
    files = {"before": before, "after": after}
    found = _latency(files, measure_turns, _ways(run), run)
    latency, speedups = _with_target(found, sliced, run)
    with stopwatch.stage("time each layer"):
        operators = of_the_first(lambda: [profile(path) for path in (before, after)])
    first, last = (
        Footprint(*counts[i], tuple(latency[name]), size_of(path), tuple(operators[i]))
        for i, (name, path) in enumerate(files.items())
    )
    return first, last, speedups


def _by_torch(run: Run, sliced: Sliced, counts: _Counts) -> _States:
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
    if _is_timed_there(run) and not by_torch(options):
        ways.append((options.threads, options.batch, options.latency_on))
    return list(dict.fromkeys(ways))


def _is_timed_there(run: Run) -> bool:
    """Return whether what a budget of latency is for can be timed on this machine."""
    return run.timing.clock is not None and run.timing.is_here


_Found = tuple[dict[str, list[Latency]], tuple[Speedup, ...]]
"""Latencies of both networks, and how much faster the smaller one is, each by way."""


def _with_target(found: _Found, sliced: Sliced, run: Run) -> _Found:
    """Add what PyTorch takes on the budget's target, if it is what runs networks there."""
    if not by_torch(run.options) or not _is_timed_there(run):
        return found
    programs: dict[str, Runnable] = {
        "before": run.original.runnable(by_torch=True),
        "after": sliced.program,
    }
    options = run.options
    way = (options.threads, options.batch, options.latency_on)

    def timing(networks: Mapping[str, Any], *, seconds: float, **_: Any) -> dict[str, Timed]:
        return turns(networks, options, seconds)

    (latency, speedups), (more, further) = found, _latency(programs, timing, [way], run)
    return {name: latency[name] + more[name] for name in latency}, speedups + further


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
