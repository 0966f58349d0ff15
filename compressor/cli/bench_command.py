"""Define `compress bench`: networks timed against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from compressor.cli.app import OUTPUT, Flag, app, check_file, show_file, watch_of_the_run
from compressor.errors import UsageError
from compressor.files.whole_file import write_whole
from compressor.options import BenchOptions


@app.command
def bench(
    *models: str,
    options: BenchOptions = BenchOptions(),  # noqa: B008 (frozen)
    out: Annotated[Path | None, Parameter(group=OUTPUT, metavar="FILE")] = None,
    force: Flag = False,
    forget: Flag = False,
) -> None:
    """Time networks against the first one, and say which layers are not faster, and why.

    Each runs in a process of its own; they take turns, the first one a second time, which shows the
    noise. Random data, warm-up dropped, threads pinned.

    Parameters
    ----------
    models
        Two or more, or one: an ONNX file, a folder that compress wrote, a program, any MODEL.
    out
        Write everything that was found as JSON.
    force
        Replace that file.
    forget
        Remove what earlier runs have kept of the times of layers on this machine (first, or alone),
        for example since the machine was busy.
    """
    if forget:
        _forget()
        if not models:
            return
    if not models:
        raise UsageError(
            "there is nothing to time",
            where="compress bench",
            consequence="nothing was done",
            next_step="give two networks, e.g. compress bench original.onnx exported/model",
        )
    if out is not None:
        check_file(out, ".json", force=force)
    from compressor.report import to_json
    from compressor.studies.bench import benchmark

    results = benchmark(models, options, watch_of_the_run())
    _show(results, every_layer=options.layers)
    if out is not None:
        with write_whole(out) as temporary:
            temporary.write_text(to_json(results), encoding="utf-8")
        show_file(out)


def _forget() -> None:
    from compressor.latency.machine import forget_tables

    count = forget_tables()
    print(f"{count} table{'s' if count != 1 else ''} of layers' times forgotten")


def _show(results: dict[str, Any], *, every_layer: bool) -> None:
    from compressor.runtimes.ways import Way
    from compressor.studies.bench.slow_layers import FixedCost, Slow
    from compressor.studies.bench.tables import (
        fixed_words,
        layers_table,
        networks_table,
        slow_tables,
        way_table,
    )

    console = Console()
    console.print(networks_table(results["networks"]))
    for entry in results["ways"]:
        way = Way(*(entry[name] for name in Way.__dataclass_fields__))
        if entry["records"]:
            console.print(way_table(way, entry["records"]))
    names = [network["name"] for network in results["networks"]]
    if every_layer:
        console.print(layers_table(names, results["layers"]))
    for name, slow, fixed in zip(names[1:], results["slow"], results["fixed"], strict=True):
        for table in slow_tables(name, [Slow(**layer) for layer in slow]):
            console.print(table)
        if words := fixed_words(name, FixedCost(**fixed)):
            console.print(words, highlight=False, markup=False)
