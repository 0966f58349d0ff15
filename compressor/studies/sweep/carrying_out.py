"""Run one trial: a network is made, judged and exported; a failure is an outcome too."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from compressor import slicing
from compressor.errors import CompressorError
from compressor.files.format_table import FORMATS, ONNX
from compressor.formats import routes_of
from compressor.formats.original import TemporaryFolder
from compressor.formats.verifying import real_inputs, write_and_verify
from compressor.graph.costs import NetworkForm, costs_of
from compressor.loading.data import batches
from compressor.metrics import TOP1
from compressor.options import Options
from compressor.recover import evaluate, primary_output, top5
from compressor.run.compress import cut_and_recover, plan
from compressor.run.journal import Journal
from compressor.run.judging import Judge, Moment
from compressor.run.opened import Run
from compressor.run.opening import open_run
from compressor.run.seeding import seeded
from compressor.run.subject import Subject
from compressor.studies.sweep.trials import DENSE, STRUCTURED, UNSTRUCTURED, Trial
from compressor.studies.sweep.unstructured import zero_and_recover
from compressor.unexpected import explain_unexpected, is_debugging
from compressor.watch import Stopwatch, Tick

Tell = Callable[[str], None]
"""A function that is told what a trial is doing, in words."""


@dataclass(frozen=True)
class Task:
    """A trial with all that another process needs for it."""

    key: str
    trial: Trial
    subject: Subject
    directory: str


@dataclass(frozen=True)
class Outcome:
    """What came of a trial: numbers and an ONNX file, or why there are none."""

    record: Mapping[str, Any] = field(default_factory=dict)
    onnx: bytes | None = None
    failure: str = ""


Outcomes = Generator[tuple[Task, Outcome], None, None]
"""Yields tasks with what came of them, in any order."""


@dataclass(frozen=True)
class TrialNetwork:
    """A network, what it costs and how it came to be.

    Attributes:
        module, program: The network in both forms.
        params: Number of elements in its parameters.
        macs: Multiply-adds of one sample.
        moments: Its steps, with the metrics after each.
    """

    module: nn.Module
    program: ExportedProgram
    params: int
    macs: int
    moments: list[Moment]


class _Told:
    """A watch that passes on what a trial is doing."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    @contextmanager
    def stage(self, name: str) -> Iterator[Tick]:
        self._tell(name)
        yield lambda done, total, note: self._tell(f"{name} {note}".strip())

    def note(self, text: str) -> None:
        pass


def nobody(text: str) -> None:
    """Ignore a text."""


def carry_out_trial(task: Task, tell: Tell = nobody) -> Outcome:
    """Run the trial; whatever goes wrong in it is returned as a failure, except an interruption.

    Under `COMPRESSOR_DEBUG` unforeseen errors are raised.
    """
    begin = time.perf_counter()
    try:
        record, onnx = _run_trial(task, tell)
    except CompressorError as error:
        return Outcome(failure=_in_a_line(error))
    except (Exception, SystemExit) as error:  # a model's or a library's code: anything may come
        if is_debugging():
            raise
        return Outcome(failure=_in_a_line(explain_unexpected(error)))
    return Outcome({**record, "seconds": time.perf_counter() - begin}, onnx)


def _in_a_line(error: CompressorError) -> str:
    reason = "; ".join(filter(None, (error.what, error.where, error.next_step)))
    return " ".join(reason.split())


def _run_trial(task: Task, tell: Tell) -> tuple[dict[str, Any], bytes | None]:
    trial, stopwatch = task.trial, Stopwatch(_Told(tell))
    options = replace(trial.options, format=())  # one file is written, when all else is done
    run, make = MAKERS[trial.kind](task.subject, options, stopwatch)
    judge = Judge(run, run.samples.test)
    with seeded(trial.options.seed):
        made = make(judge)
    module = made.module.cpu().eval()
    slicing.carry_weights(module, made.program)
    metrics = {**made.moments[-1].metrics, **_top5(run, judge, module)}
    with stopwatch.stage("export"):
        onnx = _export_and_verify(made.program, run)
    record = {
        "params": made.params,
        "macs": made.macs,
        "metrics": metrics,
        "moments": [moment.to_report() for moment in made.moments],
    }
    return record, onnx


_Maker = tuple[Run, Callable[[Judge], TrialNetwork]]
"""An opened network, and what makes the trial's of it."""


def _dense(subject: Subject, options: Options, stopwatch: Stopwatch) -> _Maker:
    run = open_run(subject, options, stopwatch)

    def make(judge: Judge) -> TrialNetwork:
        traced = run.trace
        costs = costs_of(traced, run.network)
        moments = [Moment("original", judge("evaluate", traced.module))]
        return TrialNetwork(traced.module, traced.program, costs.params, costs.macs, moments)

    return run, make


def _open_structured(subject: Subject, options: Options, stopwatch: Stopwatch) -> _Maker:
    run, decision = plan(subject, options, stopwatch)

    def make(judge: Judge) -> TrialNetwork:
        made = cut_and_recover(run, decision, judge, Journal())
        sliced = made.cut.sliced
        module = sliced.module.cpu().eval()
        slicing.carry_weights(module, sliced.program)
        slicing.compare(sliced, run.trace)
        form = NetworkForm(module, sliced.program, sliced.plan.kept)
        costs = costs_of(made.run.trace, made.run.network, form)
        return TrialNetwork(module, sliced.program, costs.params, costs.macs, made.moments)

    return run, make


def _open_unstructured(subject: Subject, options: Options, stopwatch: Stopwatch) -> _Maker:
    run = open_run(subject, options, stopwatch)

    def make(judge: Judge) -> TrialNetwork:
        module = copy.deepcopy(run.trace.module)
        slicing.learn(module, run.trace.learning)
        sparse = zero_and_recover(module, run, judge)
        return TrialNetwork(module, run.trace.program, sparse.params, sparse.macs, sparse.moments)

    return run, make


MAKERS: Mapping[str, Callable[[Subject, Options, Stopwatch], _Maker]] = {
    DENSE: _dense,
    STRUCTURED: _open_structured,
    UNSTRUCTURED: _open_unstructured,
}


def _top5(run: Run, judge: Judge, module: nn.Module) -> dict[str, float]:
    """Measure top-5 accuracy, where there are more than five classes; else return {}."""
    if judge.name != TOP1 or judge.data is None or judge.data.task.classes is not None:
        return {}
    options = run.options
    with torch.no_grad():
        scores = primary_output(judge.data.first_sample.to(module))
    if scores.ndim < 2 or scores.shape[1] <= 5:
        return {}
    with run.stopwatch.stage("evaluate top-5") as tick:
        whole = batches(judge.data, options.batch_size)
        value = evaluate(module, whole, top5, options.device, tick)
    module.cpu()
    return {"top5": value}


def _export_and_verify(program: ExportedProgram, run: Run) -> bytes | None:
    """Export the network to ONNX, compare it with PyTorch, and return the file's bytes.

    None where no file computes what PyTorch does, which is noted, or where protobuf's limit puts
    the weights into a file of their own.
    """
    folder, traced = TemporaryFolder(), run.trace
    path, routes = folder.path / FORMATS[ONNX].file, routes_of(traced.batch_symbol)
    real = real_inputs(run.samples.test, traced, run.stopwatch.note)
    try:
        write_and_verify(program, path, traced, routes, real=real)
    except CompressorError as error:
        run.stopwatch.note(f"there is no ONNX file to time: {error.what}")
        return None
    is_whole = [file.name for file in folder.path.iterdir()] == [path.name]
    return path.read_bytes() if is_whole else None
