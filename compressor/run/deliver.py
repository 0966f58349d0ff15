"""Write the files of a result into a temporary folder, and verify and measure them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compressor.errors import CompressorError
from compressor.files.folder import PLAN, REPORT, TRAINING, WEIGHTS
from compressor.files.integrity import hashes_of
from compressor.formats import save_weights
from compressor.formats.job import Job, Outcome, write_format
from compressor.formats.original import TemporaryFolder, missing
from compressor.formats.provenance import provenance
from compressor.formats.verifying import real_inputs
from compressor.latency.statistics import Speedup
from compressor.loading.plain import name_of
from compressor.records import Plan
from compressor.report import to_html, to_json, to_markdown
from compressor.run.footprints import Footprint, count_both, time_both
from compressor.run.opened import Run
from compressor.run.uniform import source_of
from compressor.slicing import Sliced


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
        text = plan.to_json()
        (files.path / PLAN).write_text(text, encoding="utf-8")
    with stopwatch.stage("count"):
        counts = count_both(run, sliced)
    some = run.samples.train or run.samples.test
    macs = counts[0][0].macs, counts[1][0].macs
    job = Job(
        *(sliced.program, traced, files.path),
        metadata=provenance(source=run.loaded.sha256, plan=text, macs=macs),
        real=real_inputs(some, traced, stopwatch.note),
        module=sliced.module,
        source=source_of(run, sliced),
        reference=sliced.lasting_reference,
    )
    formats = {name: _format(run, name, job) for name in run.options.format or ()}
    states = time_both(run, sliced, formats, files.path, counts)
    return Delivery(files, plan, formats, *states)


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
