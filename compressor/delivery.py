"""The files of a result in a temporary directory: exported, verified, measured."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from compressor.export import export_onnx, save_program, save_weights, user_inputs, verify_onnx
from compressor.measure import measure_latency
from compressor.records import Latency, Plan, Trace
from compressor.redraw import drawable, redraw_
from compressor.report import to_json, to_markdown
from compressor.slicing import Sliced, as_module, variants
from compressor.slicing.compare import TOLERANCE, is_live, outputs_of
from compressor.watch import Stopwatch, Tick

LATENCY_SECONDS = 3.0
"""How long both networks together are timed, for each number of threads."""

_LIVE = 10 * TOLERANCE


class TemporaryFolder:
    """A directory that is removed with the last reference to it."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="compress-"))
        self.remove = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


@dataclass(frozen=True)
class OnnxFile:
    """What an ONNX file weighs and how long one call takes."""

    size_bytes: int
    latency: tuple[Latency, ...]


@dataclass(frozen=True)
class Delivery:
    """What was written and found."""

    files: TemporaryFolder
    plan: Plan
    onnx_difference: float
    before: OnnxFile
    after: OnnxFile

    @property
    def is_faster(self) -> bool:
        """By a tenth or more, with one thread."""
        return self.after.latency[0].p50_ms <= 0.9 * self.before.latency[0].p50_ms

    def write_report(self, report: Mapping[str, Any]) -> None:
        (self.files.path / "report.json").write_text(to_json(report), encoding="utf-8")
        (self.files.path / "report.md").write_text(to_markdown(report), encoding="utf-8")


def deliver(sliced: Sliced, traced: Trace, stopwatch: Stopwatch) -> Delivery:
    """Export the result, verify the ONNX file, and time it against the original's.

    Raises:
        CompressorError: an export fails, or ONNX Runtime computes something else than PyTorch.
    """
    files, original = TemporaryFolder(), TemporaryFolder()
    before, after = original.path / "model.onnx", files.path / "model.onnx"
    with stopwatch.stage("export") as tick:
        tick(0, 4, "ONNX")
        export_onnx(sliced.program, after, batch_symbol=traced.batch_symbol)
        tick(1, 4, "program")
        save_program(sliced.program, files.path / "model.pt2")
        tick(2, 4, "weights and plan")
        weights = files.path / "model.safetensors"
        aliases = save_weights(sliced.module, weights, sliced.plan.aliases)
        plan = replace(sliced.plan, aliases=aliases)
        (files.path / "plan.json").write_text(plan.to_json(), encoding="utf-8")
        tick(3, 4, "the original, to compare with")
        export_onnx(traced.program, before, batch_symbol=traced.batch_symbol)
        tick(4, 4, "")
    with stopwatch.stage("verify ONNX"):
        worst = _verify(sliced.program, after, traced)
    with stopwatch.stage("measure latency") as tick:
        latency = _latency(before, after, tick)
    return Delivery(
        files,
        plan,
        worst,
        OnnxFile(_size_bytes(before), tuple(latency["before"])),
        OnnxFile(_size_bytes(after), tuple(latency["after"])),
    )


def _latency(before: Path, after: Path, tick: Tick) -> dict[str, list[Latency]]:
    """One thread and all of them; both networks take turns within each."""
    found: dict[str, list[Latency]] = {"before": [], "after": []}
    all_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    counts = sorted({1, all_threads or os.cpu_count() or 1})
    for done, threads in enumerate(counts):
        tick(done, len(counts), f"{threads} threads" if threads > 1 else "1 thread")
        files = {"before": before, "after": after}
        measured = measure_latency(files, threads=threads, seconds=LATENCY_SECONDS)
        for name, latency in measured.items():
            found[name].append(latency)
    tick(len(counts), len(counts), "")
    return found


def _size_bytes(path: Path) -> int:
    """The file with its external weights."""
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))


def _verify(program: ExportedProgram, path: Path, traced: Trace) -> float:
    """Compare the ONNX file with the program, under live weights where its own are dead."""
    cases = _cases(program, traced)
    if is_live([outputs for _, outputs in cases], _LIVE):
        return verify_onnx(path, cases, TOLERANCE)
    module = as_module(program)
    kept = {name: tensor.clone() for name, tensor in drawable(module)}
    alive = TemporaryFolder()
    try:
        redraw_(drawable(module))
        redrawn = alive.path / path.name
        export_onnx(program, redrawn, batch_symbol=traced.batch_symbol)
        return verify_onnx(redrawn, _cases(program, traced), TOLERANCE)
    finally:
        with torch.no_grad():
            for name, tensor in drawable(module):
                tensor.copy_(kept[name])


def _cases(
    program: ExportedProgram, traced: Trace
) -> list[tuple[Mapping[str, Tensor], list[Tensor]]]:
    module = as_module(program)
    return [
        (user_inputs(program, inputs.args, inputs.kwargs), outputs_of(module, inputs))
        for inputs in variants(traced)
    ]
