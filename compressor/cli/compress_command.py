"""Define `compress MODEL`, `compress resume` and `compress demo`."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console

from compressor.choose.budget import is_found_by_trying
from compressor.cli.app import (
    OUTPUT,
    Flag,
    Folder,
    app,
    is_first,
    show_file,
    show_written,
    watch_of_the_run,
)
from compressor.errors import UsageError
from compressor.files.folder import REPORT, check_target, name_of
from compressor.options import Options

if TYPE_CHECKING:
    from compressor.run.journal import Journal
    from compressor.run.subject import Subject


@app.default
def compress(
    model: str,
    /,
    *,
    options: Options = Options(),  # noqa: B008 (frozen)
    out: Folder = None,
    force: Flag = False,
    dry_run: Flag = False,
) -> None:
    """Compress a trained network and write it with its ONNX file and its numbers.

    Parameters
    ----------
    model
        A file (pickled module, torch.export program, state dict or checkpoint, safetensors), a
        transformers folder, or a factory:
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
    with watch_of_the_run().stage("import torch"):
        from compressor.processes import begin
        from compressor.run.journal import Asked, Journal, start_journal
        from compressor.run.subject import Subject
    command = shlex.join(["compress", model, *options.spelled()])
    if dry_run:
        _show_plan(Subject(model), options)
    else:
        run = Asked(model, options, str(Path.cwd()), force)
        begin(options.device)
        journal = start_journal(target, run) if options.trains else Journal()
        compress_into(
            target, Subject(model), options, force=force, command=command, journal=journal
        )


@app.command
def resume(
    folder: Path,
    /,
    *,
    lr: Annotated[float | None, Parameter(group=OUTPUT, metavar="RATE")] = None,
) -> None:
    """Go on with a run that was interrupted while it trained; it ends as if it had not been.

    Parameters
    ----------
    folder
        The folder that the run was to write.
    lr
        Another highest learning rate from here on, e.g. where the loss was no longer finite.
    """
    with watch_of_the_run().stage("import torch"):
        from compressor.processes import begin
        from compressor.run.journal import find_unfinished
        from compressor.run.subject import Subject
    target = folder.absolute()
    run, journal = find_unfinished(target)
    if (target / REPORT).exists() and not run.force:  # nothing was there when it began
        journal.close()
        watch_of_the_run().note("the run had finished when it was interrupted")
        show_file(target)
        return
    run = run if lr is None else replace(run, options=replace(run.options, lr=lr))
    os.chdir(run.directory)
    check_target(target, force=run.force)
    command = shlex.join(["compress", run.model, *run.options.spelled()])
    begin(run.options.device)
    compress_into(
        *(target, Subject(run.model), run.options),
        force=run.force,
        command=command,
        journal=journal,
    )


@app.command
def demo(
    *,
    out: Annotated[Path, Parameter(group=OUTPUT, metavar="FOLDER")] = Path("exported/demo"),
    force: Flag = False,
    seed: Annotated[int, Parameter(group=OUTPUT)] = 0,
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
    with watch_of_the_run().stage("import torch"):
        from compressor.cli import demo
        from compressor.run.subject import Subject
    train, test = demo.digits()
    options, command = replace(demo.OPTIONS, seed=seed), f"compress demo --seed {seed}"
    with demo.one_thread():
        with watch_of_the_run().stage("train a network") as tick:
            network = demo.train_network(train, seed=seed, tick=tick)
        subject = Subject(network, data=train, test=test)
        compress_into(out, subject, options, force=force, command=command)


def compress_into(
    folder: Path,
    subject: Subject,
    options: Options,
    *,
    force: bool,
    command: str,
    journal: Journal | None = None,
) -> None:
    """Compress the subject, write the result to the folder, and show its numbers.

    Where a run fails after training began, what was reached is kept for `compress resume`.

    Args:
        folder: Where the result goes; replaced if `force` is on.
        subject: The network and its data.
        options: What is asked for.
        force: Replace an earlier result.
        command: The command as the report shows it.
        journal: Where training is recorded; default none.
    """
    from compressor.report import table
    from compressor.run import compress
    from compressor.run.journal import Journal

    watch = watch_of_the_run()
    journal = journal or Journal()
    try:
        result = compress.run(subject, options, watch, command=command, journal=journal)
    except BaseException as error:
        if not journal.has_records:
            journal.close()
            raise
        kept = f"what was reached is kept: compress resume {folder} goes on from there"
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(kept) from None
        watch.note(kept)
        raise
    if not is_first():
        return
    with watch.stage("write the folder"):
        result.save(folder, force=force, once=True)
    journal.close()
    show_written(folder, table(result.report))


def _show_plan(subject: Subject, options: Options) -> None:
    from compressor.report import plan_tables
    from compressor.run import compress
    from compressor.run.decide import predict, say_how_met
    from compressor.run.explaining import explain, shadow_price
    from compressor.run.searching import may_search

    if is_found_by_trying(options):
        raise UsageError(
            "a dry run tries nothing, and --max-drop is found by trying",
            where="--dry-run",
            consequence="nothing was done",
            next_step="give --ratio to see a plan, or leave --dry-run out",
        )
    watch = watch_of_the_run()
    run, decision = compress.plan(subject, options, watch, predict_latency=True)
    say_how_met(run, decision)
    if decision.refusal is not None:
        watch.note(f"{decision.refusal.what}, unless whole blocks go, which is tried with the cut")
    if options.steps > 1:
        watch.note("the plan of one step: with --steps later choices depend on those before")
    if may_search(run):
        watch.note("the plan without a search: it looks for a better one when the network is cut")
    console = Console()
    for part in plan_tables(explain(run, decision), run.unit, predict(run, decision)):
        console.print(part)
    console.print(shadow_price(run, decision), highlight=False, markup=False, soft_wrap=True)
    console.print("dry run: nothing was written")
