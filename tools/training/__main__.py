"""The command line of the training study."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from cyclopts import App

from tools.options import DataRoot
from tools.progress import each
from tools.training.data import DATA
from tools.training.run import Runner
from tools.training.studies import STUDIES
from tools.training.table import to_markdown
from tools.training.trial import Trial, append, read

RECORDS = Path("docs/results/training.jsonl")

app = App(name="tools.training", help=__import__("tools.training").training.__doc__)


@app.default
def run(
    *,
    data_root: DataRoot,
    only: tuple[str, ...] = ("cpu",),
    device: Literal["cpu", "cuda"] = "cpu",
    out: Path = RECORDS,
) -> int:
    """Run the trials that `out` does not have yet.

    Parameters
    ----------
    data_root
        Folder with the trained weights and their data.
    only
        Names of studies: cpu, gpu, decisions.
    device
        Where networks are trained.
    out
        File of records, one line per trial; a second run goes on where the first stopped, epochs
        of the trial that was interrupted are kept in a folder beside it.
    """
    known = read(out)
    for study in only:
        todo = [trial for trial in STUDIES[study] if trial.key not in known]
        runner = Runner(DATA[study](data_root, device), out.with_suffix(".unfinished"))
        each(todo, _words, lambda trial, runner=runner: append(out, trial, runner.run(trial)))
    return 0


@app.command
def table(records: Path = RECORDS, *, out: Path | None = None) -> None:
    """Print what trials found as a page, or write it to `out`."""
    page = to_markdown(list(read(records).values()))
    if out is None:
        print(page)
    else:
        out.write_text(page, encoding="utf-8")


def _words(trial: Trial) -> str:
    what = trial.method or "latency"
    return f"{trial.study}: {trial.network} {trial.times:g}x, {what}, seed {trial.seed}"


if __name__ == "__main__":
    sys.exit(app())
