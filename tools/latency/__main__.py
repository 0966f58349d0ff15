"""The command line of the latency study."""

from __future__ import annotations

import sys
from pathlib import Path

from cyclopts import App

from tools.latency.studies import STUDIES, Bench
from tools.latency.table import draw, to_markdown
from tools.latency.trial import append, read
from tools.options import DataRoot
from tools.progress import each
from tools.surroundings import where

app = App(name="tools.latency", help=__import__("tools.latency").latency.__doc__)


@app.default
def run(
    *,
    data_root: DataRoot,
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
    known = read(out)
    todo = [t for study in only or STUDIES for t in STUDIES[study] if t.key not in known]
    bench = Bench(data_root)
    each(
        todo,
        lambda t: f"{t.study}: {t.network} {t.method} {t.ratio:.0%}",
        lambda t: append(out, t, {**bench.run(t), "where": where()}),
    )
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


if __name__ == "__main__":
    sys.exit(app())
