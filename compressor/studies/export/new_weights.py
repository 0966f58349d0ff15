"""Write a result's folder again, for weights that the user trained further."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from compressor.errors import CompressorError, UsageError
from compressor.files.folder import (
    LAYERS,
    PLAN,
    REPORT,
    SCRIPT,
    TRAINING,
    WEIGHTS,
    all_or_nothing,
    check_target,
    size_of,
)
from compressor.files.format_table import FORMATS, HF, ONNX
from compressor.files.hashes import sha256_of
from compressor.files.integrity import check_files, hashes_of
from compressor.formats import OnnxModule, save_weights
from compressor.formats.folder_source import FolderSource, source_in
from compressor.formats.job import Job, Outcome, differences_of, write_format
from compressor.formats.provenance import provenance_of
from compressor.formats.verifying import real_inputs
from compressor.loading import read_retrained, read_safetensors
from compressor.loading.data import batches
from compressor.loading.given import open_result
from compressor.metrics import FIDELITY
from compressor.options import ExportOptions
from compressor.records import Plan
from compressor.report import to_html, to_json, to_markdown
from compressor.run.subject import measure_named
from compressor.slicing import as_module
from compressor.slicing.leaving import rename
from compressor.slicing.plan_file import read_plan
from compressor.studies.export.source import Source, open_source
from compressor.watch import Stopwatch, Watch

CARRIED = (PLAN, FORMATS[ONNX].original, SCRIPT, LAYERS, TRAINING)
"""Files that do not depend on the weights, and are copied."""


def export_retrained(
    folder: Path, options: ExportOptions, watch: Watch, *, target: Path, force: bool = False
) -> dict[str, Any]:
    """Write a result's folder with the weights of `options.weights`, all of it or nothing.

    What is not made anew (other exports of the old weights) is left out.

    Args:
        folder: The result, as compress wrote it.
        options: Name the file of the weights, and data.
        watch: Shows progress and notes.
        target: The folder that is written; it may be the same.
        force: Replace an earlier result.

    Returns:
        The report, with the sizes, differences and metrics of the new files.

    Raises:
        UsageError: The target exists and `force` is off; the folder is no whole result.
        CompressorError: A file was changed, or the weights are not of this network.
    """
    assert options.weights is not None
    result = open_result(str(folder), "export")
    check_target(target, force=force)
    stopwatch = Stopwatch(watch)
    with stopwatch.stage("load"):
        report, plan = _report_of(folder), read_plan(folder / PLAN)
        source = open_source(result, options, stopwatch)
        check_files(folder, (WEIGHTS, *CARRIED))
        stored = read_safetensors(folder / WEIGHTS)
        weights = Path(options.weights)
        tensors = _read(weights, stored, plan)
        _put_into(source.traced.program, tensors, plan.aliases)
    with all_or_nothing(target, force=force) as staged:
        for name in CARRIED:
            if (folder / name).exists():
                shutil.copyfile(folder / name, staged / name)
        save_weights(tensors, staged / WEIGHTS, {})
        names = [name for name, row in FORMATS.items() if (folder / row.file).exists()]
        hf = partial(source_in, folder / FORMATS[HF].file, plan)
        formats = {name: _write(name, source, staged, stopwatch, hf) for name in names}
        metrics = _metrics(source, staged, stopwatch)
        _renew(report, formats, metrics, staged)
        step = {"step": f"weights of {weights.name}", "metrics": report["after"]["metrics"]}
        report["recovery"] = [*report["recovery"], step]
        report["command"] = f"compress export {folder} --weights {weights}"
        stopwatch.note(f"weights of {weights.name}, sha256 {sha256_of(weights)}")
        report["notes"] = [*report["notes"], *stopwatch.notes]
        pages = {REPORT: to_json, "report.md": to_markdown, "report.html": to_html}
        for page, text_of in pages.items():
            (staged / page).write_text(text_of(report), encoding="utf-8")
    return report


def _read(path: Path, stored: Mapping[str, Tensor], plan: Plan) -> dict[str, Tensor]:
    """Read weights by the names of the module, from which items may have left, or the program.

    Returns:
        The tensors by the names under which they are stored.
    """
    items = plan.removal.leaving if plan.removal is not None else ()
    names = rename([*stored, *plan.aliases], items)
    moved = {names[name]: tensor for name, tensor in stored.items()}
    aliases = {names[alias]: names[name] for alias, name in plan.aliases.items()}
    try:
        tensors = read_retrained(path, moved, aliases)
    except CompressorError:
        if not items:
            raise
        return read_retrained(path, stored, plan.aliases)
    return {name: tensors[names[name]] for name in stored}


def _report_of(folder: Path) -> dict[str, Any]:
    try:
        report: dict[str, Any] = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        assert report["after"]["metrics"] is not None
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise UsageError(
            "the folder is no whole result: its report cannot be read",
            where=f"{folder / REPORT}: {type(error).__name__}",
            consequence="nothing was written",
            next_step="give a folder that compress has written",
        ) from None
    return report


def _put_into(
    program: ExportedProgram, tensors: Mapping[str, Tensor], aliases: Mapping[str, str]
) -> None:
    """Overwrite the program's own tensors, in place, with the new ones."""
    with torch.no_grad():
        for name, own in program.state_dict.items():
            new = tensors.get(aliases.get(name, name))
            if new is not None and isinstance(own, Tensor):
                own.copy_(new)


def _write(
    name: str,
    source: Source,
    staged: Path,
    stopwatch: Stopwatch,
    hf: Callable[[], FolderSource],
) -> Outcome:
    job = Job(
        *(source.traced.program, source.traced, staged),
        metadata=provenance_of(source.folder),
        real=real_inputs(source.train or source.test, source.traced),
        module=source.origin,
        source=hf,
    )
    with stopwatch.stage(f"write and verify {name}"):
        outcome = write_format(name, job)
    if outcome.reason or outcome.how:
        stopwatch.note(f"{FORMATS[name].file}: {outcome.reason or outcome.how}")
    return outcome


def _metrics(source: Source, staged: Path, stopwatch: Stopwatch) -> dict[str, float]:
    """Measure the metric on the test data, of the ONNX file or, without one, of the program."""
    measure = measure_named(source.options.metric, source.test)
    if source.test is None or measure.is_beside_original:
        stopwatch.note("no labelled --test or --data: no metric is measured of these weights")
        return {}
    onnx = staged / FORMATS[ONNX].file
    module = OnnxModule(onnx, source.inputs) if onnx.exists() else as_module(source.traced.program)
    some = batches(source.test, source.batch or source.options.batch_size)
    with stopwatch.stage("evaluate") as tick:
        return measure.all_of(module, some, progress=tick)


def _renew(
    report: dict[str, Any],
    formats: Mapping[str, Outcome],
    metrics: Mapping[str, float],
    staged: Path,
) -> None:
    """Update the report, in place, in what depends on the weights; times do not.

    A metric that was not measured becomes None. How near the outputs are to the original's was
    measured of the old weights, and goes.
    """
    report.pop(FIDELITY, None)
    names, onnx = report["before"]["metrics"], staged / FORMATS[ONNX].file
    report["after"]["metrics"] = {name: metrics.get(name) for name in names}
    report["after"]["size_bytes"] = size_of(onnx)
    report["formats"] = {name: asdict(outcome) for name, outcome in formats.items()}
    report["differences"] = differences_of(formats)
    report["files"] = hashes_of(staged)
