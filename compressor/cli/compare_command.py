"""Define `compress compare`: results beside one another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from compressor.cli.app import OUTPUT, Flag, app, check_file, show_file, watch_of_the_run
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
        check_file(out, ".svg", force=force)
    from compressor.studies import compare

    entries = [compare.read_result(folder) for folder in folders]
    Console().print(compare.table(entries))
    for note in compare.notes(entries):
        watch_of_the_run().note(note)
    if out is not None:
        from compressor.files.whole_file import write_whole
        from compressor.studies.compare.results_picture import check_drawable, draw_comparison

        check_drawable(entries)
        with write_whole(out) as temporary:
            draw_comparison(entries, temporary)
        show_file(out)
