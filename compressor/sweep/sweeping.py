"""A whole sweep: what is there already, what is left to do, and what it all comes to."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from torch import Tensor, nn

from compressor.criteria import CRITERIA
from compressor.errors import CompressorError, UsageError
from compressor.options import Options, SweepOptions, recovery_of
from compressor.preparing import Opened, open_network
from compressor.report import to_json, versions
from compressor.score import needs_data, needs_loss
from compressor.subject import Subject
from compressor.sweep.checklist import Found, checklist
from compressor.sweep.grid import DENSE, complete, dense_of, trials_of
from compressor.sweep.identity import key_of, surroundings_of
from compressor.sweep.latencies import timed_all, way_of
from compressor.sweep.on_ray import check_ray
from compressor.sweep.page import pictures_of, tables, to_html
from compressor.sweep.pictures import drawn, file_of, settings_of, styles_of
from compressor.sweep.results import Curve, Done, Row, curves_of, rows_of, to_csv
from compressor.sweep.running import run_all
from compressor.sweep.store import CSV, CURVES, JSON, PAGE, Store, check_folder
from compressor.sweep.trial import Outcome, Task
from compressor.watch import Silent, Stopwatch, Watch

SCHEMA = 1


@dataclass(frozen=True)
class Sweep:
    """What a sweep has found.

    Attributes:
        rows: One per trial, as in results.csv.
        curves: Means over seeds, by method within a setting.
        results: Everything, as in results.json.
    """

    rows: list[Row]
    curves: list[Curve]
    results: dict[str, Any]

    @property
    def failed(self) -> list[Row]:
        """Trials that did not succeed, with their reason."""
        return [row for row in self.rows if row["failure"]]

    def tables(self) -> list[Table]:
        """For the terminal: per setting a line per method and ratio."""
        return tables(self.curves, self.results["dense"]["metrics"])


def sweep(
    model: nn.Module | str,
    example_inputs: Any = None,
    *,
    out: str | Path,
    data: Any = None,
    test: Any = None,
    loss: str | Callable[[Any, Any], Tensor] | None = None,
    metric: str | Callable[[Any, Any], Any] | None = None,
    watch: Watch | None = None,
    **options: Any,
) -> Sweep:
    """Compare ways to make a network smaller, as `compress sweep` does.

    Args:
        out: The folder that is written; one of an earlier sweep is gone on with.
        options: The command line's options by name, e.g. `ratios=(0.5, 0.75)`, `seeds=3`
            (`compressor.options.SweepOptions`).

    The other arguments are those of `compressor.compress`.

    Raises:
        UsageError, CompressorError: What is wrong with the options, the network or the data. Trials
            that fail are in the result.
    """
    objects: dict[str, Any] = {}
    for name, given in (("data", data), ("test", test), ("loss", loss), ("metric", metric)):
        is_spec = isinstance(given, str) or (
            name in ("data", "test")
            and isinstance(given, list | tuple)
            and all(isinstance(item, str) for item in given)
        )
        (options if is_spec and given is not None else objects)[name] = given
    chosen = SweepOptions.of_keywords(options)
    subject = Subject(model, example_inputs, **objects)
    words = model if isinstance(model, str) else type(model).__name__
    return run(subject, chosen, Path(out), watch or Silent(), command=f"sweep({words!r}, ...)")


def check(options: SweepOptions) -> None:
    """Raise UsageError for what cannot be meant, before anything is loaded."""
    if not options.test:
        raise _unjudged("--test", "for all trials to be judged on the same samples")
    trials_of(complete(options, has_data=bool(options.data)))
    if options.ray is not None:
        check_ray()


def run(
    subject: Subject, options: SweepOptions, folder: Path, watch: Watch, *, command: str
) -> Sweep:
    """Run what is not there yet, time it, and write the folder.

    Raises: as `sweep`.
    """
    has_data = subject.data is not None or bool(options.data)
    options = complete(options, has_data=has_data)
    trials, stopwatch = trials_of(options), Stopwatch(watch)
    if options.ray is not None:
        check_ray()
    check_folder(folder)
    opened = _opened(subject, options, stopwatch)
    surroundings = surroundings_of(opened, options)
    directory = str(Path.cwd())
    tasks = [Task(key_of(trial, surroundings), trial, subject, directory) for trial in trials]
    store = Store(folder)
    outcomes = _outcomes(tasks, options, store, stopwatch)
    succeeded = [task for task in tasks if not outcomes[task.key].failure]
    times = timed_all(succeeded, tasks[0], dense_of(options).options, store, stopwatch)
    done = [Done(task, outcomes[task.key], times.get(task.key, {})) for task in tasks]
    found = _found(done, opened, options, command, stopwatch)
    with stopwatch.stage("write the results"):
        _write(found, store)
    return found


def _opened(subject: Subject, options: SweepOptions, stopwatch: Stopwatch) -> Opened:
    """The network and its data, with which everything is known to fit that trials need."""
    if subject.test is None and not options.test:
        raise _unjudged("--test", "for all trials to be judged on the same samples")
    opened = open_network(subject, dense_of(options).options, stopwatch)
    samples = opened.samples
    if samples.test is None:
        raise _unjudged("--test or --metric", samples.evaluated_on)
    if samples.train is None:
        wanting: list[str] = [n for n in options.criteria if needs_data(n, CRITERIA)]
        wanting += [text for text in options.recoveries if recovery_of(text, 1) != _NO_RECOVERY]
        _refuse(wanting, "--data", "training data")
    elif not (samples.train.labelled or subject.loss or options.loss):
        wanting = [name for name in options.criteria if needs_loss(name, CRITERIA)]
        _refuse(wanting, samples.train.name, "labels, or a --loss that does without")
    return opened


_NO_RECOVERY = recovery_of("none")


def _refuse(wanting: Sequence[str], where: str, what: str) -> None:
    if wanting:
        raise UsageError(
            f"{', '.join(wanting)}: this needs {what}",
            where=where,
            consequence="nothing was done",
            next_step=f"give {what}, or leave {wanting[0]} out",
        )


def _unjudged(where: str, why: str) -> UsageError:
    return UsageError(
        f"a sweep compares a metric on data that nothing else uses: {why}",
        where=where,
        consequence="nothing was done",
        next_step="give labelled --test DATA",
    )


def _outcomes(
    tasks: Sequence[Task], options: SweepOptions, store: Store, stopwatch: Stopwatch
) -> dict[str, Outcome]:
    """By the tasks' keys: what was kept, and what is run now. Failures are not kept.

    Raises:
        CompressorError: The dense original could not be judged.
    """
    kept = {task.key: store.kept(task.key) for task in tasks}
    found = {key: outcome for key, outcome in kept.items() if outcome is not None}
    missing = list({task.key: task for task in tasks if task.key not in found}.values())
    if found and missing:
        stopwatch.note(f"{len(found)} trials are there already, {len(missing)} are left")
    if not missing:
        return found
    with stopwatch.stage(f"{len(missing)} trials") as tick:
        progress = _Progress(len(missing), options.jobs, tick)
        with closing(run_all(missing, options.jobs, options.ray, progress.at)) as coming:
            for task, outcome in coming:
                found[task.key] = outcome
                progress.ended(task, outcome, stopwatch)
                if not outcome.failure:
                    store.keep(task.key, outcome)
                elif task.trial.kind == DENSE:
                    raise CompressorError(
                        f"the dense original fails: {outcome.failure}",
                        consequence="nothing can be compared; finished trials are kept",
                        next_step="compress MODEL --dry-run says more of the network",
                    )
    return found


class _Progress:
    """How many trials are done, how many have failed, and about how long the others will take."""

    def __init__(self, total: int, jobs: int, tick: Callable[[int, int, str], None]) -> None:
        self.total, self.jobs, self.tick = total, min(jobs, total), tick
        self.begin = time.perf_counter()
        self.done = self.failed = 0

    def at(self, task: Task, text: str) -> None:
        """A trial is at something."""
        self.tick(self.done, self.total, f"{self._left()}{task.trial.words}: {text}")

    def ended(self, task: Task, outcome: Outcome, stopwatch: Stopwatch) -> None:
        self.done += 1
        if outcome.failure:
            self.failed += 1
            stopwatch.note(f"failed: {task.trial.words}: {outcome.failure}")
        failed = f", {self.failed} failed" if self.failed else ""
        self.tick(self.done, self.total, f"{self._left()}{self.done} of {self.total}{failed}")

    def _left(self) -> str:
        if not self.done or self.done == self.total:
            return ""
        seconds = (time.perf_counter() - self.begin) / self.done * (self.total - self.done)
        return f"about {seconds / 60:.0f} min left, " if seconds > 90 else f"{seconds:.0f} s left, "


def _found(
    done: Sequence[Done],
    opened: Opened,
    options: SweepOptions,
    command: str,
    stopwatch: Stopwatch,
) -> Sweep:
    loaded, samples = opened.loaded, opened.samples
    model = opened.subject.model
    rows = rows_of(done, model if isinstance(model, str) else "MODEL")
    dense = next(one.outcome.record for one in done if one.task.trial.kind == DENSE)
    metrics: dict[str, float] = dense["metrics"]
    curves = curves_of(rows, list(metrics))
    base: Options = dense_of(options).options
    results: dict[str, Any] = {
        "schema": SCHEMA,
        "command": command,
        "model": {
            "name": loaded.name,
            "recognised": loaded.recognised,
            "weights": loaded.weights,
            "sha256": loaded.sha256,
        },
        "evaluated_on": samples.evaluated_on,
        "evaluated_samples": len(samples.test) if samples.test else 0,
        "options": asdict(options),
        "dense": {name: dense[name] for name in ("params", "macs", "metrics")},
        "machine": way_of(base),
        "versions": versions(),
        "notes": stopwatch.notes,
    }
    items = checklist(Found(rows, curves, list(metrics), results))
    results |= {
        "checklist": [asdict(item) for item in items],
        "curves": [curve.to_dict() for curve in curves],
        "trials": [
            {**row, "moments": one.outcome.record.get("moments", [])}
            for row, one in zip(rows, done, strict=True)
        ],
    }
    return Sweep(rows, curves, results)


def _write(found: Sweep, store: Store) -> None:
    styles, metrics = styles_of(found.curves), found.results["dense"]["metrics"]
    for setting, curves in settings_of(found.curves).items():
        for picture in pictures_of(metrics):
            text = drawn(curves, picture, styles, legend=True)
            store.write(f"{CURVES}/{file_of(setting, picture)}", text)
    store.write(PAGE, to_html(found.results, found.curves))
    store.write(JSON, to_json(found.results))
    store.write(CSV, to_csv(found.rows))
