"""The files of a result in a temporary directory: exported, verified, measured."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from compressor.delivery.costs import Costs, costs_of
from compressor.delivery.provenance import provenance
from compressor.delivery.verifying import real_inputs, verified
from compressor.export import export_onnx, save_program, save_weights
from compressor.files.folder import size_of
from compressor.files.integrity import hashes_of
from compressor.latency import layers_of, portable_layers
from compressor.measure import Operator, Speedup, measure_turns, profiled, speedup_of
from compressor.plain import name_of
from compressor.planning.deciding import Planned
from compressor.planning.original import TemporaryFolder
from compressor.processes import of_the_first
from compressor.records import Latency, Plan
from compressor.recovery.picture import draw_trainings, trainings_of
from compressor.report import noisy_words, to_html, to_json, to_markdown
from compressor.sessions import cores
from compressor.slicing import Sliced
from compressor.watch import Tick

LATENCY_SECONDS = 3.0
"""How long both networks together are timed, for each number of threads."""


@dataclass(frozen=True)
class OnnxFile:
    """What a network costs, what its ONNX file weighs and how long one call takes, whole and by
    operator."""

    costs: Costs
    size_bytes: int
    latency: tuple[Latency, ...]
    operators: tuple[Operator, ...]


@dataclass(frozen=True)
class Delivery:
    """What was written and found."""

    files: TemporaryFolder
    plan: Plan
    onnx_difference: float
    before: OnnxFile
    after: OnnxFile
    speedups: tuple[Speedup, ...]
    """Per latency how many times less the smaller network takes."""

    @property
    def is_hardly_faster(self) -> bool:
        """By less than a tenth with one thread, as far as times can tell."""
        hardly = self.after.latency[0].own_ms > 0.9 * self.before.latency[0].own_ms
        return hardly and not self.speedups[0].is_noisy

    def hashes(self) -> dict[str, str]:
        """Of the files that the report answers for."""
        return hashes_of(self.files.path)

    def write_report(self, report: Mapping[str, Any]) -> None:
        pages = {"report.json": to_json, "report.md": to_markdown, "report.html": to_html}
        for name, text_of in pages.items():
            (self.files.path / name).write_text(text_of(report), encoding="utf-8")
        if trainings_of(report["recovery"]):
            (metric,) = [*report["before"]["metrics"], "metric"][:1]
            draw_trainings(report["recovery"], metric, self.files.path / "training.svg")


def deliver(sliced: Sliced, planned: Planned) -> Delivery:
    """Export the result, verify the ONNX file, and time it against the original's.

    Raises:
        CompressorError: an export fails, or ONNX Runtime computes something else than PyTorch.
    """
    traced, stopwatch, files = planned.trace, planned.stopwatch, TemporaryFolder()
    after = files.path / "model.onnx"
    with stopwatch.stage("export") as tick:
        tick(0, 4, "program")
        save_program(sliced.program, files.path / "model.pt2")
        tick(1, 4, "weights and plan")
        weights = files.path / "model.safetensors"
        loaded = planned.loaded
        aliases = save_weights(sliced.module, weights, sliced.plan.aliases, types=loaded.stored)
        types = {name: name_of({name: dtype}) for name, dtype in loaded.types.items()}
        parametrised = planned.options.keep_parametrisations
        plan = replace(sliced.plan, aliases=aliases, types=types, parametrised=parametrised)
        (files.path / "plan.json").write_text(plan.to_json(), encoding="utf-8")
        tick(2, 4, "ONNX")
        costs = [costs_of(module, traced) for module in (traced.module, sliced.module)]
        metadata = provenance(
            source=planned.loaded.sha256,
            plan=plan.to_json(),
            macs=(costs[0].macs, costs[1].macs),
        )
        export_onnx(sliced.program, after, batch_symbol=traced.batch_symbol, metadata=metadata)
        tick(3, 4, "the original, to compare with")
        before = planned.original.onnx
        _for_other_machines(before, files.path, planned)
        tick(4, 4, "")
    with stopwatch.stage("verify ONNX"):
        some = planned.samples.train or planned.samples.test or planned.samples.unlabelled
        real = real_inputs(some, traced, stopwatch.note)
        worst = verified(sliced.program, after, traced, real=real)
    with stopwatch.stage("measure latency") as tick:
        latency, speedups = _latency(before, after, _ways(planned), tick)
    for way, speedup in zip(latency["before"], speedups, strict=True):
        if speedup.is_noisy:
            stopwatch.note(noisy_words(asdict(way), asdict(speedup)))
    with stopwatch.stage("time each layer"):
        operators = of_the_first(lambda: [profiled(path) for path in (before, after)])
    first, last = (
        OnnxFile(costs[i], size_of(path), tuple(latency[name]), tuple(operators[i]))
        for i, (name, path) in enumerate({"before": before, "after": after}.items())
    )
    return Delivery(files, plan, worst, first, last, tuple(speedups))


def _for_other_machines(original: Path, folder: Path, planned: Planned) -> None:
    """A script that needs nothing of ours times both networks and the original's layers anywhere;
    the original lies beside it unless its weights do not fit into one file."""
    script = resources.files("compressor") / "templates" / "bench.py"
    (folder / "bench.py").write_text(script.read_text(encoding="utf-8"), encoding="utf-8")
    if not original.with_name(f"{original.name}.data").exists():
        shutil.copyfile(original, folder / "original.onnx")
    traced, table = planned.trace, planned.timing.table
    batch = traced.batch if traced.batch_symbol is None else planned.options.batch
    layers = layers_of(traced, planned.network, batch)
    steps = table.steps if table is not None else {}
    (folder / "layers.json.gz").write_bytes(portable_layers(layers, steps, batch))


_Way = tuple[int, int, str]
"""Threads, samples in a call, device."""


def _ways(planned: Planned) -> list[_Way]:
    """One thread and all of them, one sample each; and what a budget of latency is for."""
    options = planned.options
    ways = [(threads, 1, "cpu") for threads in sorted({1, cores()})]
    if planned.timing.clock is not None and planned.timing.is_here:
        ways.append((options.threads, options.batch, options.latency_on))
    return list(dict.fromkeys(ways))


def _latency(
    before: Path, after: Path, ways: list[_Way], tick: Tick
) -> tuple[dict[str, list[Latency]], list[Speedup]]:
    """Both networks, and the original once more, take turns within each way; how much faster the
    smaller one is, and how far the original differs from itself."""
    found: dict[str, list[Latency]] = {"before": [], "after": []}
    speedups = []
    for done, (threads, batch, device) in enumerate(ways):
        tick(done, len(ways), f"{threads} threads" if threads > 1 else "1 thread")
        files = {"before": before, "after": after, "again": before}
        measured = of_the_first(
            partial(
                measure_turns,
                files,
                threads=threads,
                batch=batch,
                device=device,
                seconds=LATENCY_SECONDS,
            )
        )
        for name, latencies in found.items():
            latencies.append(measured[name].latency)
        original, smaller, again = (measured[name].turns for name in files)
        speedups.append(speedup_of(original, smaller, again))
    tick(len(ways), len(ways), "")
    return found, speedups
