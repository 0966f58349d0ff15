"""`compress compare`: results beside one another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from compressor.cli.app import OUTPUT, Flag, app, watch_of_the_run
from compressor.errors import UsageError


@app.command
def compare(
    *folders: Path,
    out: Annotated[Path | None, Parameter(group=OUTPUT, metavar="FILE.svg")] = None,
    force: Flag = False,
) -> None:
    """Show several results in one table: sizes, time, metrics, each with its change.

    Parameters
    ----------
    folders
        Folders that compress has written, one or more.
    out
        Also draw the metric against MACs, latency and size.
    force
        Replace an earlier picture.
    """
    if not folders:
        raise UsageError(
            "there is nothing to compare",
            consequence="nothing was done",
            next_step="compress compare FOLDER FOLDER ...",
        )
    if out is not None:
        _check_picture(out, force=force)
    from compressor import comparison

    entries = [comparison.read_result(folder) for folder in folders]
    Console().print(comparison.table(entries))
    for note in comparison.notes(entries):
        watch_of_the_run().note(note)
    if out is not None:
        from compressor.comparison_picture import check_drawable, draw_comparison
        from compressor.whole_file import written_whole

        check_drawable(entries)
        with written_whole(out) as temporary:
            draw_comparison(entries, temporary)
        Console().print(f"written to {out}", highlight=False, markup=False, soft_wrap=True)


def _check_picture(out: Path, *, force: bool) -> None:
    if out.suffix != ".svg":
        problem, next_step = "the picture is an SVG", "give a name that ends with .svg"
    elif out.is_dir():
        problem, next_step = "the picture's name is that of a folder", "give another with --out"
    elif out.exists() and not force:
        problem, next_step = "the picture exists", "replace it with --force, or give another name"
    else:
        return
    raise UsageError(
        problem, where=f"--out {out}", consequence="nothing was done", next_step=next_step
    )
