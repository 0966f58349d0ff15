"""The command line: `compress MODEL`, and sub-commands.

A sub-command is a function with `@app.command`; torch is imported inside, so that `--help` is
quick. Sub-command names win over files of the same name: write `./demo` for such a file.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, Group, Parameter
from rich.console import Console
from rich.table import Table

from compressor.errors import CompressorError, UsageError
from compressor.folder import SENSITIVITY_FILES, check_target, name_of
from compressor.options import ModelOptions, Options, SensitivityOptions
from compressor.terminal import Terminal

if TYPE_CHECKING:
    from compressor.inspection import Inspection
    from compressor.journal import Journal
    from compressor.subject import Subject

INTERRUPTED = 130
_OUTPUT = Group("Output", sort_key=7)
_Flag = Annotated[bool, Parameter(group=_OUTPUT, negative=(), show_default=False)]
_Folder = Annotated[Path | None, Parameter(group=_OUTPUT, metavar="FOLDER")]

app = App(
    name="compress",
    help="A trained PyTorch network goes in, a genuinely smaller dense network comes out.",
    usage="Usage: compress MODEL [OPTIONS]\n       compress COMMAND [OPTIONS]\n",
    help_format="plaintext",
    help_epilogue="Example: compress model.pt --ratio 0.5 --data train.npz --epochs 2",
    version_flags=["--version"],
    version=lambda: _version(),
    suppress_keyboard_interrupt=False,
)


@app.default
def compress(
    model: str,
    /,
    *,
    options: Options = Options(),  # noqa: B008 (frozen)
    out: _Folder = None,
    force: _Flag = False,
    dry_run: _Flag = False,
) -> None:
    """Compress a trained network and write it with its ONNX file and its numbers.

    Parameters
    ----------
    model
        A file (pickled module, torch.export program, state dict, safetensors), or a factory:
        'torchvision:resnet50', 'timm:resnet18', 'package.module:callable', 'path/file.py:callable'.
    out
        Folder that is written, all of it or nothing; default exported/<name>.
    force
        Replace an earlier result.
    dry_run
        Show the plan and its predicted numbers; write nothing.
    """
    target = out or Path("exported") / name_of(model)
    if not dry_run:
        check_target(target, force=force)
    with _watch().stage("import torch"):
        from compressor.journal import Journal, Run, started
        from compressor.processes import begin
        from compressor.subject import Subject
    command = shlex.join(["compress", model, *options.spelled()])
    if dry_run:
        _show_plan(Subject(model), options)
    else:
        run = Run(model, options, str(Path.cwd()), force)
        begin(options.device)
        journal = started(target, run) if options.trains else Journal()
        _compress_into(
            target, Subject(model), options, force=force, command=command, journal=journal
        )


@app.command
def resume(
    folder: Path,
    /,
    *,
    lr: Annotated[float | None, Parameter(group=_OUTPUT, metavar="RATE")] = None,
) -> None:
    """Go on with a run that was interrupted while it trained; it ends as if it had not been.

    Parameters
    ----------
    folder
        The folder that the run was to write.
    lr
        Another highest learning rate from here on, e.g. where the loss was no longer finite.
    """
    with _watch().stage("import torch"):
        from compressor.journal import unfinished
        from compressor.processes import begin
        from compressor.subject import Subject
    target = folder.absolute()
    run, journal = unfinished(target)
    run = run if lr is None else replace(run, options=replace(run.options, lr=lr))
    os.chdir(run.directory)
    check_target(target, force=run.force)
    command = shlex.join(["compress", run.model, *run.options.spelled()])
    begin(run.options.device)
    _compress_into(
        *(target, Subject(run.model), run.options),
        force=run.force,
        command=command,
        journal=journal,
    )


@app.command(name="--list-criteria", group=_OUTPUT)
def list_criteria() -> None:
    """Show what each --criterion measures, whether it needs data, and its paper."""
    from compressor.criteria import CRITERIA
    from compressor.terminal import criteria_table

    Console().print(criteria_table(CRITERIA))


@app.command
def demo(
    *,
    out: Annotated[Path, Parameter(group=_OUTPUT, metavar="FOLDER")] = Path("exported/demo"),
    force: _Flag = False,
    seed: Annotated[int, Parameter(group=_OUTPUT)] = 0,
) -> None:
    """Train a small network on handwritten digits, compress it by half, show what it cost.

    Needs no file and no network; under a minute and a half on two cores.

    Parameters
    ----------
    out
        Folder that is written.
    force
        Replace an earlier result.
    seed
        Seed of training and compression.
    """
    check_target(out, force=force)
    with _watch().stage("import torch"):
        from compressor import demo
        from compressor.subject import Subject
    train, test = demo.digits()
    options, command = replace(demo.OPTIONS, seed=seed), f"compress demo --seed {seed}"
    with demo.one_thread():
        with _watch().stage("train a network") as tick:
            network = demo.trained(train, seed=seed, tick=tick)
        subject = Subject(network, data=train, test=test)
        _compress_into(out, subject, options, force=force, command=command)


@app.command
def sensitivity(
    model: str,
    /,
    *,
    options: SensitivityOptions = SensitivityOptions(),  # noqa: B008 (frozen)
    out: _Folder = None,
    force: _Flag = False,
) -> None:
    """Measure how much each group of channels bears: cut it alone, and see what is lost.

    With labelled --data or --test, the metric; else how far the outputs move. Nothing is sliced.
    compress MODEL --use FOLDER/sensitivity.json then cuts each group as far as it bears.

    Parameters
    ----------
    model
        As for compressing: a file or a factory.
    out
        Folder for sensitivity.json and sensitivity.svg, both or nothing; default
        exported/<name>-sensitivity.
    force
        Replace an earlier measurement.
    """
    target = out or Path("exported") / f"{name_of(model)}-sensitivity"
    check_target(target, force=force, files=SENSITIVITY_FILES)
    with _watch().stage("import torch"):
        from compressor import sensitivity
        from compressor.subject import Subject
    found = sensitivity.measure(Subject(model), options, _watch())
    sensitivity.write(found, target, force=force)
    _show_written(target, sensitivity.table(found))


@app.command
def inspect(
    model: str,
    /,
    *,
    options: ModelOptions = ModelOptions(),  # noqa: B008 (frozen)
    json: _Flag = False,
    second_opinion: _Flag = False,
) -> None:
    """Show which channels of a network depend on each other, and what cannot be pruned and why.

    A group's share of MACs is what goes when all but one of its channels go.

    Parameters
    ----------
    model
        As for compressing: a file or a factory.
    json
        Write JSON and nothing else to standard output.
    second_opinion
        Compare with torch-pruning's dependency graph, and list where they differ.
    """
    with _watch().stage("import torch"):
        from compressor import inspection
        from compressor.report import to_json
    with redirect_stdout(sys.stderr) if json else nullcontext():  # what models and libraries print
        found = inspection.inspect(model, options, _watch())
        description = inspection.describe(found)
        opinion = _second_opinion(found) if second_opinion else None
    if json:
        print(to_json({**description, "second_opinion": opinion}), end="")
        return
    console = Console()
    for table in inspection.tables(description, found):
        console.print(table)
    if opinion is not None and not opinion["failure"]:
        console.print(inspection.opinion_table(opinion))


def _second_opinion(found: Inspection) -> dict[str, Any]:
    from compressor.second_opinion import second_opinion

    watch = _watch()
    with watch.stage("second opinion"):
        opinion = second_opinion(found.trace, found.network)
    if opinion["failure"]:
        watch.note(f"{opinion['by']} fails on this network: {opinion['failure']}")
    return opinion


def _compress_into(
    folder: Path,
    subject: Subject,
    options: Options,
    *,
    force: bool,
    command: str,
    journal: Journal | None = None,
) -> None:
    from compressor import pipeline
    from compressor.journal import Journal
    from compressor.report import table

    watch = _watch()
    journal = journal or Journal()
    try:
        result = pipeline.run(subject, options, watch, command=command, journal=journal)
    except BaseException:
        if journal.has_records:
            watch.note(f"what was reached is kept: compress resume {folder} goes on from there")
        else:
            journal.close()
        raise
    if not _is_first():
        return
    with watch.stage("write the folder"):
        result.save(folder, force=force)
    journal.close()
    _show_written(folder, table(result.report))


def _show_written(folder: Path, table: Table) -> None:
    console = Console()
    console.print(table)
    console.print(f"written to {folder}", highlight=False, markup=False, soft_wrap=True)


def _show_plan(subject: Subject, options: Options) -> None:
    from compressor import pipeline
    from compressor.explaining import explained, shadow_price
    from compressor.report import plan_tables

    if options.max_drop is not None:
        raise UsageError(
            "a dry run tries nothing, and --max-drop is found by trying",
            where="--dry-run",
            consequence="nothing was done",
            next_step="give --ratio to see a plan, or leave --dry-run out",
        )
    watch = _watch()
    planned = pipeline.plan(subject, options, watch, predict_latency=True)
    if options.steps > 1:
        watch.note("the plan of one step: with --steps later choices depend on those before")
    console = Console()
    for part in plan_tables(explained(planned), options.of, planned.predictions()):
        console.print(part)
    console.print(shadow_price(planned), highlight=False, markup=False, soft_wrap=True)
    console.print("dry run: nothing was written")


def _watch() -> Terminal:
    return Terminal(Console(stderr=True, quiet=not _is_first()))


def _is_first() -> bool:
    """Of several processes that a launcher has started, the one that speaks and writes."""
    return os.environ.get("RANK", "0") == "0"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 failure, 2 usage, 130 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with _terminated_like_interrupted(), _quiet():
            app(
                arguments,
                exit_on_error=False,
                print_error=False,
                result_action="return_value",
            )
    except KeyboardInterrupt:
        return _fail(CompressorError("interrupted", consequence=_UNTOUCHED), INTERRUPTED)
    except CycloptsError as error:
        return _fail(_misuse(error), UsageError.exit_code)
    except CompressorError as error:
        error.consequence = error.consequence or _UNTOUCHED
        return _fail(error, error.exit_code)
    except (Exception, SystemExit) as error:  # a model's or a library's code: anything may come
        if isinstance(error.__context__, BrokenPipeError):  # the reader of our output went away
            return CompressorError.exit_code
        if os.environ.get("COMPRESSOR_DEBUG"):
            raise
        return _fail(_surprise(error), CompressorError.exit_code)
    return 0


_UNTOUCHED = "nothing was written; an earlier result is untouched"


def _fail(error: CompressorError, code: int) -> int:
    Terminal(Console(stderr=True)).error(error)
    return code


def _misuse(error: CycloptsError) -> UsageError:
    return UsageError(
        " ".join(str(error).split()),
        consequence="nothing was done",
        next_step="compress --help lists the arguments and options",
    )


def _surprise(error: BaseException) -> CompressorError:
    text = " ".join(str(error).split())
    return CompressorError(
        f"{type(error).__name__}: {text[:500]}" if text else type(error).__name__,
        consequence=_UNTOUCHED,
        next_step="COMPRESSOR_DEBUG=1 in the environment shows where it happened",
    )


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM unwinds as Ctrl-C does, so that hidden directories are removed."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    try:
        previous = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def _quiet() -> Iterator[None]:
    """Libraries' warnings and logs stay off the terminal, but for debugging."""
    if os.environ.get("COMPRESSOR_DEBUG"):
        yield
        return
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _version() -> str:
    from importlib.metadata import version

    return version("compressor")
