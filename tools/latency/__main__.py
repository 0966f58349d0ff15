"""The command line of the latency study."""

from __future__ import annotations

import datetime
import os
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from compressor.latency.machine import machine_of
from compressor.report import versions
from tools.latency.studies import STUDIES, Bench
from tools.latency.table import draw, to_markdown
from tools.latency.trial import append, read

app = App(name="tools.latency", help=__import__("tools.latency").latency.__doc__)


@app.default
def run(
    *,
    data_root: Annotated[Path | None, Parameter(env_var="COMPRESSOR_DATA")] = None,
    only: tuple[str, ...] = (),
    out: Path = Path("latency.jsonl"),
) -> int:
    """Run the trials that `out` does not have yet.

    Parameters
    ----------
    data_root
        Folder with the trained weights and their data.
    only
        Names of studies; default all.
    out
        File of records, one line per trial; a second run goes on where the first stopped.
    """
    if data_root is None:
        print("where is the data? give --data-root FOLDER or set COMPRESSOR_DATA", file=sys.stderr)
        return 2
    known = read(out)
    todo = [t for study in only or STUDIES for t in STUDIES[study] if t.key not in known]
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("trials", total=len(todo))
        bench = Bench(data_root)
        for trial in todo:
            words = f"{trial.study}: {trial.network} {trial.method} {trial.ratio:.0%}"
            progress.update(task, description=words)
            append(out, trial, {**bench.run(trial), "where": _where()})
            progress.update(task, advance=1)
    return 0


@app.command
def table(records: Path = Path("latency.jsonl"), *, out: Path | None = None) -> None:
    """Print what trials found as a page, or write it to `out`, with a picture beside it."""
    found = list(read(records).values())
    picture = None if out is None else out.with_suffix(".svg")
    page = to_markdown(found, picture.name if picture else "")
    if out is None or picture is None:
        print(page)
        return
    draw(found, picture)
    out.write_text(page, encoding="utf-8")


def _where() -> dict[str, Any]:
    machine = machine_of(1, 1, "cpu")
    return {
        "processor": machine["processor"],
        "cores": os.cpu_count(),
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        **{name: versions()[name] for name in ("torch", "onnxruntime")},
    }


if __name__ == "__main__":
    sys.exit(app())
