"""The command line of the trials."""

from __future__ import annotations

import sys
from pathlib import Path

from cyclopts import App

from tools.options import DataRoot
from tools.progress import each
from tools.surroundings import where
from tools.trials import incumbent
from tools.trials.networks import NETWORKS, Measured
from tools.trials.ours import Ours
from tools.trials.studies import STUDIES
from tools.trials.table import to_markdown
from tools.trials.trial import Record, Trial, append, missing, read

app = App(name="tools.trials", help=__import__("tools.trials").trials.__doc__)


@app.default
def run(
    *,
    data_root: DataRoot,
    only: tuple[str, ...] = (),
    out: Path = Path("trials.jsonl"),
    decide: bool = False,
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
    decide
        Judge on the data that is kept for decisions; nothing of the test data is looked at.
    """
    wanted = [trial for study in only or STUDIES for trial in STUDIES[study]]
    todo = missing(wanted, out)
    bench = _Bench(data_root, decide)
    surroundings = where()
    each(
        todo,
        _line,
        lambda trial: append(out, trial, {**bench.run(trial), "where": surroundings}),
    )
    return 0


@app.command
def table(records: Path = Path("trials.jsonl"), *, out: Path | None = None) -> None:
    """Print what trials found as a page, or write it to `out`."""
    page = to_markdown(list(read(records).values()))
    if out is None:
        print(page)
    else:
        out.write_text(page, encoding="utf-8")


class _Bench:
    """Networks stay loaded and analysed while trials are of them."""

    def __init__(self, root: Path, decide: bool) -> None:
        self.root, self.decide = root, decide
        self.name = ""

    def run(self, trial: Trial) -> Record:
        if trial.network != self.name:
            self.name = trial.network
            self.measured: Measured = NETWORKS[self.name](self.root, decide=self.decide)
            self.original = self.measured.judge(self.measured.module)
            self.ours = Ours(self.measured)
        is_ours = not trial.choice.startswith(incumbent.PREFIX)
        found = self.ours.run(trial) if is_ours else incumbent.run(trial, self.measured)
        return found | {"original": self.original, "shows": self.measured.first}


def _line(trial: Trial) -> str:
    return f"{trial.network}: {trial.choice}, {trial.repair}, {trial.ratio:.0%}, draw {trial.draw}"


if __name__ == "__main__":
    sys.exit(app())
