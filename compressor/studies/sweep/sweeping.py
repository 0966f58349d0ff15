"""Run a whole sweep: see what is there, run what is left, and sum it up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from compressor.errors import CompressorError, UsageError
from compressor.options import SweepOptions, recovery_of
from compressor.run.opened import Opened
from compressor.run.opening import open_network
from compressor.run.subject import Subject
from compressor.score import needs_data, needs_loss
from compressor.studies.sweep.carrying_out import Outcome, Task
from compressor.studies.sweep.curves_of_trials import Done
from compressor.studies.sweep.identity import key_of, surroundings_of
from compressor.studies.sweep.latencies import time_all
from compressor.studies.sweep.on_ray import check_ray
from compressor.studies.sweep.pool import run_all
from compressor.studies.sweep.progress import Progress
from compressor.studies.sweep.store import Store, check_folder
from compressor.studies.sweep.summary import Sweep, sum_up, write
from compressor.studies.sweep.trials import DENSE, complete, dense_of, trials_of
from compressor.watch import Silent, Stopwatch, Watch


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

    The arguments that are not listed are those of `compressor.compress`.

    Args:
        out: The folder that is written; one of an earlier sweep is gone on with.
        options: The command line's options by name, e.g. `ratios=(0.5, 0.75)`, `seeds=3`
            (`compressor.options.SweepOptions`).

    Raises:
        UsageError, CompressorError: Something is wrong with the options, the network or the data.
            Trials that fail are in the result.
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
    """Check the options before anything is loaded.

    Raises:
        UsageError: They say what cannot be meant.
    """
    if not options.test:
        raise _no_judge()
    trials_of(complete(options, has_data=bool(options.data)))
    if options.ray is not None:
        check_ray()


def run(
    subject: Subject, options: SweepOptions, folder: Path, watch: Watch, *, command: str
) -> Sweep:
    """Run the trials that are not there yet, time them, and write the folder.

    Raises:
        UsageError, CompressorError: As `sweep`.
    """
    has_data = subject.data is not None or bool(options.data)
    options = complete(options, has_data=has_data)
    trials, stopwatch = trials_of(options), Stopwatch(watch)
    if options.ray is not None:
        check_ray()
    check_folder(folder)
    opened = _open(subject, options, stopwatch)
    surroundings = surroundings_of(opened, options)
    directory = str(Path.cwd())
    tasks = [Task(key_of(trial, surroundings), trial, subject, directory) for trial in trials]
    store = Store(folder)
    outcomes = _outcomes(tasks, options, store, stopwatch)
    succeeded = [task for task in tasks if not outcomes[task.key].failure]
    times = time_all(succeeded, tasks[0], dense_of(options).options, store, stopwatch)
    done = [Done(task, outcomes[task.key], times.get(task.key, {})) for task in tasks]
    finished = sum_up(done, opened, options, command, stopwatch)
    with stopwatch.stage("write the results"):
        write(finished, store)
    return finished


def _open(subject: Subject, options: SweepOptions, stopwatch: Stopwatch) -> Opened:
    """Open the network and its data, and check that everything fits them that trials need."""
    if subject.test is None and not options.test:
        raise _no_judge()
    opened = open_network(subject, dense_of(options).options, stopwatch)
    samples = opened.samples
    if samples.train is None:
        wanting: list[str] = [n for n in options.criteria if needs_data(n)]
        wanting += [text for text in options.recoveries if recovery_of(text, 1) != _NO_RECOVERY]
        _refuse(wanting, "--data", "training data")
    elif not (samples.train.labelled or subject.loss or options.loss):
        wanting = [name for name in options.criteria if needs_loss(name)]
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


def _no_judge() -> UsageError:
    return UsageError(
        "a sweep judges all trials on the same samples, which nothing else uses",
        where="--test",
        consequence="nothing was done",
        next_step="give --test DATA; without labels it is how near the original's outputs are",
    )


def _outcomes(
    tasks: Sequence[Task], options: SweepOptions, store: Store, stopwatch: Stopwatch
) -> dict[str, Outcome]:
    """Return the outcome of every task by its key: what was kept, and what is run now.

    Failures are not kept.

    Raises:
        CompressorError: The dense original could not be judged.
    """
    kept = {task.key: store.find(task.key) for task in tasks}
    outcomes = {key: outcome for key, outcome in kept.items() if outcome is not None}
    missing = list({task.key: task for task in tasks if task.key not in outcomes}.values())
    if outcomes and missing:
        stopwatch.note(f"{len(outcomes)} trials are there already, {len(missing)} are left")
    if not missing:
        return outcomes
    with stopwatch.stage(f"{len(missing)} trials") as tick:
        progress = Progress(len(missing), tick)
        with closing(run_all(missing, options.jobs, options.ray, progress.at)) as coming:
            for task, outcome in coming:
                outcomes[task.key] = outcome
                progress.count(task, outcome, stopwatch)
                if not outcome.failure:
                    store.keep(task.key, outcome)
                elif task.trial.kind == DENSE:
                    raise CompressorError(
                        f"the dense original fails: {outcome.failure}",
                        consequence="nothing can be compared; finished trials are kept",
                        next_step="compress MODEL --dry-run says more of the network",
                    )
    return outcomes
