"""Define `compress export`: a result's files with other options."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from compressor.cli.app import Flag, Folder, app, show_file, show_written, watch_of_the_run
from compressor.files.format_table import FORMATS
from compressor.options import ExportOptions


@app.command
def export(
    folder: Path,
    /,
    *,
    options: ExportOptions = ExportOptions(),  # noqa: B008 (frozen)
    out: Folder = None,
    force: Flag = False,
) -> None:
    """Write a result's ONNX file or OpenVINO model again: another opset, batch or image size, 16 or
    8 bits; or all of its files for weights that were trained further (--weights).

    Each file is compared with the network before it appears, and timed against the one with 32
    bits; with data its accuracy is measured. Names say what is special: model_b8_opset18.onnx,
    model_fp16.onnx, model_int8.onnx.

    Parameters
    ----------
    folder
        What compress has written.
    out
        Where the files go; default the same folder.
    force
        Replace files of these names; with --weights the whole folder.
    """
    with watch_of_the_run().stage("import torch"):
        from compressor.report import table as report_table
        from compressor.studies import export
    target = out or folder
    if options.weights is not None:
        report = export.export_retrained(
            folder, options, watch_of_the_run(), target=target, force=force
        )
        show_written(target, report_table(report))
        return
    found = export.export_again(folder, options, watch_of_the_run(), target=target, force=force)
    Console().print(_table(found))
    for name in export.names_of(options):
        show_file(target / name)


def _table(found: dict[str, Any]) -> Table:
    from compressor.report.formatting import in_bytes, way

    first = next(iter(found.values()))
    title = f"{FORMATS[first['options']['format']].label}s"
    shown = Table(title=title, title_justify="left")
    shown.add_column("file", overflow="fold")
    times = [way(latency) for latency in first["latency"]]
    for header in ("size", "difference", *first["metrics"], *times):
        shown.add_column(header, justify="right")
    for name, entry in found.items():
        shown.add_row(
            name,
            in_bytes(entry["size_bytes"]),
            f"{entry['difference']:.1e}",
            *_cells(first["metrics"], entry["metrics"].values(), "{:.4f}"),
            *_cells(times, [latency["p50_ms"] for latency in entry["latency"]], "{:.3g} ms"),
        )
    return shown


def _cells(columns: Collection[str], values: Collection[float], how: str) -> list[str]:
    """Make a cell for each column; dashes where nothing was measured."""
    return [how.format(value) for value in values] or ["–"] * len(columns)
