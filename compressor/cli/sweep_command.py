"""Define `compress sweep`: ways to make a network smaller, compared fairly."""

from __future__ import annotations

import shlex
from pathlib import Path

from rich.console import Console

from compressor.cli.app import Folder, app, show_file, watch_of_the_run
from compressor.errors import CompressorError
from compressor.files.folder import name_of
from compressor.options import SweepOptions


@app.command
def sweep(
    model: str,
    /,
    *,
    options: SweepOptions = SweepOptions(),  # noqa: B008 (frozen)
    out: Folder = None,
) -> None:
    """Compare criteria, scopes, schedules and recoveries over ratios and seeds, beside controls.

    Random and uniform magnitude pruning, unstructured pruning and the dense original are always
    there. Trials are kept as they finish: the same command again goes on, a larger grid reuses
    them. Every other option of compress holds for all trials.

    Parameters
    ----------
    model
        As for compressing: a file or a factory.
    out
        Folder for results.csv, results.json, report.html, curves and trials; default
        exported/<name>-sweep.
    """
    target = out or Path("exported") / f"{name_of(model)}-sweep"
    watch = watch_of_the_run()
    with watch.stage("import torch"):
        from compressor.run.subject import Subject
        from compressor.studies import sweep
    sweep.check(options)
    command = shlex.join(["compress", "sweep", model, *options.spelled()])
    try:
        done = sweep.run(Subject(model), options, target, watch, command=command)
    except KeyboardInterrupt:
        kept = f"what was reached is kept in {target}: the same command goes on from there"
        raise KeyboardInterrupt(kept) from None
    for table in done.tables():
        Console().print(table)
    show_file(target)
    if done.failed:
        raise CompressorError(
            f"{len(done.failed)} of {len(done.rows)} trials failed: {done.failed[0]['failure']}",
            where=str(target / "results.csv"),
            consequence="the curves lack them; all others are there, and kept",
            next_step="the same command tries them again",
        )
