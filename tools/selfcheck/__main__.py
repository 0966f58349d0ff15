"""The command line of the self-check."""

from __future__ import annotations

import sys
from pathlib import Path

from cyclopts import App

from tools.jsonl import append_trial, read_trials
from tools.options import DataRoot
from tools.progress import each
from tools.selfcheck.checks import PART, Check, made, wanted
from tools.selfcheck.table import to_markdown
from tools.selfcheck.unchanged import compare
from tools.surroundings import where

RECORDS = Path("docs/results/selfcheck.jsonl")

app = App(name="tools.selfcheck", help=__import__("tools.selfcheck").selfcheck.__doc__)


@app.default
def run(
    *,
    only: tuple[str, ...] = (),
    kills: int = 100,
    damages: int = 5 * PART,
    out: Path = RECORDS,
    list_: bool = False,
) -> int:
    """Make the checks that `out` does not have yet; the exit status says whether all is well.

    Parameters
    ----------
    only
        Kinds of checks: determinism, refusals, fuzz, kills, changes; default all.
    kills
        How many at random moments, over all commands that are killed.
    damages
        How many damaged files of each sort.
    out
        File of records, one line per check; a second run goes on where the first stopped.
    list_
        Only say how many there are.
    """
    checks = wanted(only, kills, damages)
    known = read_trials(out, Check)
    todo = [check for check in checks if check.key not in known]
    if list_:
        print(f"{len(checks)} checks, {len(todo)} of them to be made")
        return 0
    surroundings = where()
    each(
        todo,
        str,
        lambda check: append_trial(out, check, {**made(check), "where": surroundings}),
    )
    found = read_trials(out, Check)
    bad = [check for check in checks if found[check.key]["problems"]]
    for check in bad:
        print(f"{check}: {'; '.join(found[check.key]['problems'])}", file=sys.stderr)
    print(f"{len(checks) - len(bad)} of {len(checks)} checks are well")
    return 1 if bad else 0


@app.command
def unchanged(folder: Path, *, data_root: DataRoot | None = None) -> int:
    """Keep in FOLDER what today's code makes; a later call says what differs from it.

    Parameters
    ----------
    folder
        Where the record is kept; it holds for one machine and one set of packages.
    data_root
        Folder with trained weights.
    """
    problems = compare(folder, data_root)
    return 1 if problems else 0


@app.command
def table(records: Path = RECORDS, *, out: Path | None = None) -> None:
    """Print what was found as a page, or write it to `out`."""
    page = to_markdown(list(read_trials(records, Check).values()))
    if out is None:
        print(page)
    else:
        out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(app())
