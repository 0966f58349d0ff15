"""Define `compress inspect`, `sensitivity` and `--list-criteria`, which make nothing smaller."""

from __future__ import annotations

import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from compressor.cli.app import (
    OUTPUT,
    Flag,
    Folder,
    app,
    check_file,
    show_file,
    show_written,
    watch_of_the_run,
)
from compressor.files.folder import SENSITIVITY_FILES, check_target, name_of
from compressor.files.whole_file import write_whole
from compressor.options import InspectOptions, SensitivityOptions

if TYPE_CHECKING:
    from compressor.studies.inspect import Inspection


@app.command(name="--list-criteria", group=OUTPUT)
def list_criteria() -> None:
    """Show what each --criterion measures, whether it needs data, and its paper."""
    from compressor.cli.terminal import criteria_table
    from compressor.score.criteria import CRITERIA

    Console().print(criteria_table(CRITERIA))


@app.command
def sensitivity(
    model: str,
    /,
    *,
    options: SensitivityOptions = SensitivityOptions(),  # noqa: B008 (frozen)
    out: Folder = None,
    force: Flag = False,
) -> None:
    """Measure how much each group of channels bears: cut it alone, and see what is lost.

    Whole blocks are left out alone, too. With labelled --data or --test, the metric is measured;
    else how far the outputs move. Nothing is sliced or repaired.
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
    with watch_of_the_run().stage("import torch"):
        from compressor.run.subject import Subject
        from compressor.studies import sensitivity
    measured = sensitivity.measure(Subject(model), options, watch_of_the_run())
    sensitivity.write(measured, target, force=force)
    show_written(target, *sensitivity.tables(measured))


@app.command
def inspect(
    model: str,
    /,
    *,
    options: InspectOptions = InspectOptions(),  # noqa: B008 (frozen)
    json: Flag = False,
    second_opinion: Flag = False,
    graph: Annotated[Path | None, Parameter(group=OUTPUT, metavar="FILE.svg")] = None,
    force: Flag = False,
) -> None:
    """Show which channels of a network depend on each other, and what cannot be pruned and why.

    A group's share of MACs is what goes when all but one of its channels go. Blocks are branches
    that an addition joins to a stream; a block's share is what goes with it, of the time of one
    call, too, with --time.

    Parameters
    ----------
    model
        As for compressing: a file or a factory.
    json
        Write JSON and nothing else to standard output.
    second_opinion
        Compare with torch-pruning's dependency graph, and list where they differ.
    graph
        Draw the network there, layer by layer, with groups as colours.
    force
        Replace that file.
    """
    if graph is not None:
        check_file(graph, ".svg", force=force)
    with watch_of_the_run().stage("import torch"):
        from compressor.report import to_json
        from compressor.studies import inspect
    with redirect_stdout(sys.stderr) if json else nullcontext():  # what models and libraries print
        inspection = inspect.inspect(model, options, watch_of_the_run())
        description = inspect.describe(inspection)
        opinion = _second_opinion(inspection) if second_opinion else None
    if graph is not None:
        from compressor.studies.inspect.graph_picture import draw_network

        with write_whole(graph) as temporary:
            draw_network(inspection.trace, inspection.network, temporary)
    if json:
        print(to_json({**description, "second_opinion": opinion}), end="")
        return
    console = Console()
    for table in inspect.tables(description, inspection):
        console.print(table)
    if opinion is not None and not opinion["failure"]:
        console.print(inspect.opinion_table(opinion))
    if graph is not None:
        show_file(graph)


def _second_opinion(inspection: Inspection) -> dict[str, Any]:
    from compressor.studies.inspect.second_opinion import second_opinion

    watch = watch_of_the_run()
    with watch.stage("second opinion"):
        opinion = second_opinion(inspection.trace, inspection.network)
    if opinion["failure"]:
        watch.note(f"{opinion['by']} fails on this network: {opinion['failure']}")
    return opinion
