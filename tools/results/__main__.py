"""The command line of all studies."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from cyclopts import App
from rich.console import Console
from rich.table import Table

from tools.options import DataRoot
from tools.results.studies import STUDIES, Study

app = App(name="tools.results", help=__import__("tools.results").results.__doc__)
console = Console()


@app.default
def run(
    *,
    data_root: DataRoot | None = None,
    only: tuple[str, ...] = (),
    again: bool = False,
    list_: bool = False,
) -> int:
    """Run all studies, and write their pages.

    Parameters
    ----------
    data_root
        Folder with the trained weights and their data.
    only
        Names of studies; default all.
    again
        Measure everything anew: records of earlier runs are removed first.
    list_
        Only show what would be run, and about how long it takes.
    """
    unknown = set(only) - {study.name for study in STUDIES}
    if unknown:
        names = ", ".join(study.name for study in STUDIES)
        print(f"there is no study {', '.join(sorted(unknown))}: there are {names}", file=sys.stderr)
        return 2
    wanted = [study for study in STUDIES if not only or study.name in only]
    console.print(_plan(wanted))
    if list_:
        return 0
    if data_root is None:
        print("where is the data? give --data-root FOLDER or set COMPRESSOR_DATA", file=sys.stderr)
        return 2
    failed = [study.name for study in wanted if not _carried_out(study, data_root, again=again)]
    if failed:
        print(f"not well: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _plan(studies: list[Study]) -> Table:
    table = Table(title="studies", title_justify="left")
    for header in ("name", "what", "records so far", "pages", "hours from nothing, about"):
        table.add_column(header, overflow="fold", no_wrap=header == "name")
    for study in studies:
        pages = ", ".join(map(str, study.pages))
        table.add_row(study.name, study.what, str(study.done or "–"), pages, f"{study.hours:g}")
    table.add_row("", "", "", "", f"{sum(study.hours for study in studies):g}", style="bold")
    return table


def _carried_out(study: Study, root: Path, *, again: bool) -> bool:
    """All of its commands, in processes of their own; its page is written though one failed."""
    begin, fine = time.perf_counter(), True
    for path in study.records if again else ():
        path.unlink(missing_ok=True)
    for words in study.commands_with(root):
        console.print(f"python -m {' '.join(words)}", highlight=False, soft_wrap=True)
        fine &= subprocess.run([sys.executable, "-m", *words], check=False).returncode == 0
    minutes = (time.perf_counter() - begin) / 60
    console.print(f"{study.name}: {minutes:.1f} minutes", highlight=False)
    return fine


if __name__ == "__main__":
    sys.exit(app())
