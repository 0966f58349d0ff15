"""Write a result's folder again, for weights that the user trained further."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from compressor.errors import UsageError
from compressor.files.folder import all_or_nothing, check_target, size_of
from compressor.files.hashes import sha256_of
from compressor.files.integrity import check_files, hashes_of
from compressor.formats import OnnxModule, save_weights
from compressor.formats.provenance import provenance_of
from compressor.formats.table import FORMATS, Job, Outcome, written
from compressor.formats.verifying import real_inputs
from compressor.loading import read_retrained, read_safetensors
from compressor.loading.data import batches
from compressor.options import ExportOptions
from compressor.recover import evaluate
from compressor.report import to_html, to_json, to_markdown
from compressor.run.subject import metric_named
from compressor.slicing import as_module
from compressor.slicing.plan_file import read_plan
from compressor.studies.export.source import Source, opened
from compressor.watch import Stopwatch, Watch

CARRIED = ("plan.json", "original.onnx", "bench.py", "layers.json.gz", "training.svg")
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
    check_target(target, force=force)
    stopwatch = Stopwatch(watch)
    with stopwatch.stage("load"):
        report, plan = _report_of(folder), read_plan(folder / "plan.json")
        source = opened(folder, options, stopwatch)
        check_files(folder, ("model.safetensors", *CARRIED))
        stored = read_safetensors(folder / "model.safetensors")
        weights = Path(options.weights)
        tensors = read_retrained(weights, stored, plan.aliases)
        _put_into(source.traced.program, tensors, plan.aliases)
    with all_or_nothing(target, force=force) as staged:
        for name in CARRIED:
            if (folder / name).exists():
                shutil.copyfile(folder / name, staged / name)
        save_weights(tensors, staged / "model.safetensors", {})
        names = [name for name, each in FORMATS.items() if (folder / each.files[0]).exists()]
        formats = {name: _written(name, source, staged, stopwatch) for name in names}
        metrics = _metrics(source, staged, stopwatch)
        _renew(report, formats, metrics, staged)
        step = {"step": f"weights of {weights.name}", "metrics": report["after"]["metrics"]}
        report["recovery"] = [*report["recovery"], step]
        report["command"] = f"compress export {folder} --weights {weights}"
        stopwatch.note(f"weights of {weights.name}, sha256 {sha256_of(weights)}")
        report["notes"] = [*report["notes"], *stopwatch.notes]
        pages = {"report.json": to_json, "report.md": to_markdown, "report.html": to_html}
        for page, text_of in pages.items():
            (staged / page).write_text(text_of(report), encoding="utf-8")
    return report


def _report_of(folder: Path) -> dict[str, Any]:
    try:
        report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        assert report["after"]["metrics"] is not None
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise UsageError(
            "the folder is no whole result: its report.json cannot be read",
            where=f"{folder / 'report.json'}: {type(error).__name__}",
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


def _written(name: str, source: Source, staged: Path, stopwatch: Stopwatch) -> Outcome:
    job = Job(
        *(source.traced.program, source.traced, staged),
        metadata=provenance_of(source.folder),
        real=real_inputs(source.train or source.test, source.traced),
    )
    with stopwatch.stage(f"write and verify {name}"):
        outcome = written(name, job)
    if outcome.reason or outcome.how:
        stopwatch.note(f"{FORMATS[name].files[0]}: {outcome.reason or outcome.how}")
    return outcome


def _metrics(source: Source, staged: Path, stopwatch: Stopwatch) -> dict[str, float]:
    """Measure the metric on the test data, of the ONNX file or, without one, of the program."""
    if source.test is None:
        stopwatch.note("no labelled --test or --data: no metric is measured of these weights")
        return {}
    title, metric = metric_named(source.options.metric)
    onnx = staged / "model.onnx"
    module = OnnxModule(onnx, source.inputs) if onnx.exists() else as_module(source.traced.program)
    some = batches(source.test, source.batch or source.options.batch_size)
    with stopwatch.stage("evaluate") as tick:
        return {title: evaluate(module, some, metric, "cpu", tick)}


def _renew(
    report: dict[str, Any],
    formats: Mapping[str, Outcome],
    metrics: Mapping[str, float],
    staged: Path,
) -> None:
    """Update the report, in place, in what depends on the weights; times do not.

    A metric that was not measured becomes None.
    """
    names, onnx = report["before"]["metrics"], staged / "model.onnx"
    report["after"]["metrics"] = {name: metrics.get(name) for name in names}
    report["after"]["size_bytes"] = size_of(onnx) if onnx.exists() else 0
    report["formats"] = {name: asdict(outcome) for name, outcome in formats.items()}
    there = {name: outcome.difference for name, outcome in formats.items() if outcome.is_there}
    report["differences"] = {"program and ONNX file": there["onnx"]} if "onnx" in there else {}
    report["files"] = hashes_of(staged)
