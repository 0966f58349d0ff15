"""The command line of the studies."""

from __future__ import annotations

import subprocess
import sys
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from cyclopts import App
from rich.console import Console
from rich.table import Table

from compressor.errors import CompressorError
from compressor.hosts import read_host
from compressor.latency.on_host import ask_target
from tools.jsonl import append_line, append_trial, read_trials
from tools.options import DataRoot
from tools.progress import each
from tools.studies import pages
from tools.studies.coverage import compare
from tools.studies.making import Runner, by_network
from tools.studies.networks import ALL, CARRIED
from tools.studies.studies import STUDIES
from tools.studies.trial import Trial
from tools.surroundings import where
from tools.zoo.members import Settings
from tools.zoo.runner import Job, Limits, limit_memory, note, read, run_apart
from tools.zoo.zoos import ZOOS

RESULTS = Path("docs/results")
RECORDS = RESULTS / "studies.jsonl"

app = App(name="tools.studies", help=__import__("tools.studies").studies.__doc__)


@app.default
def run(
    *,
    data_root: DataRoot | None = None,
    only: tuple[str, ...] = (),
    most: int | None = None,
    records: Path = RECORDS,
    list_: bool = False,
) -> int:
    """Run the trials that have no record yet.

    Parameters
    ----------
    data_root
        Folder with the trained weights and their data.
    only
        Names of studies; default all.
    most
        At most so many trials, the most telling first.
    records
        File of records, one line per trial.
    list_
        Only show what there is, what was run, and about how long the rest takes.
    """
    if unknown := set(only) - STUDIES.keys():
        print(
            f"no study: {', '.join(sorted(unknown))}; there are {', '.join(STUDIES)}",
            file=sys.stderr,
        )
        return 2
    known = read_trials(records, Trial)
    if list_:
        Console().print(_overview(set(known)))
        return 0
    if data_root is None:
        print("where is the data? give --data-root FOLDER or set COMPRESSOR_DATA", file=sys.stderr)
        return 2
    rows = [row for name in only or STUDIES for row in STUDIES[name].rows]
    missing = _missing({row.trial.network for row in rows})
    for network, reason in missing.items():
        print(f"skipped: {network}: {reason}", file=sys.stderr)
    away = _away({row.trial.options.get("on") for row in rows} - {None})
    for host, reason in away.items():
        print(f"skipped: --on {host}: {reason}", file=sys.stderr)
    todo = {
        row.trial.key: row.trial
        for row in rows
        if row.trial.key not in known
        and row.trial.network not in missing
        and row.trial.options.get("on") not in away
    }
    runner, about = Runner(ALL, data_root), {**where(), "code": _commit()}
    each(
        by_network(list(todo.values())[:most]),
        lambda trial: f"{trial.network}: {trial.tool} {dict(trial.options)}"[:100],
        lambda trial: append_trial(records, trial, {**runner.run(trial), "where": about}),
    )
    return 0


@app.command(name="pages")
def write_pages(folder: Path = RESULTS) -> None:
    """Write the pages from the records that lie in the same folder."""
    for name in pages.NAMES:
        (folder / name).write_text(pages.page(name, folder), encoding="utf-8")


@app.command
def coverage(
    *,
    data_root: DataRoot | None = None,
    zoo: tuple[str, ...] = ("transformers", "data", "torchvision", "timm"),
    name: str = "*",
    records: Path = RESULTS / "peers-coverage.jsonl",
    seconds: int = 600,
) -> None:
    """Cut networks of the zoo by both tools, each in a process of its own.

    Parameters
    ----------
    data_root
        Folder with trained weights.
    zoo
        Zoos that are covered.
    name
        Glob of networks.
    records
        File of records, one line per network; those that it has are not run again.
    seconds
        Time limit of a network.
    """
    settings, known = Settings(Path("exported"), data_root), read(records)
    root = ("--data-root", str(data_root)) if data_root else ()
    todo = [
        Job(each_zoo, member, root, "tools.studies")
        for each_zoo in zoo
        for member in ZOOS[each_zoo].smallest_first(ZOOS[each_zoo].names(settings))
        if (each_zoo, member) not in known and fnmatchcase(member, name)
    ]
    each(
        todo,
        lambda job: f"{job.zoo}: {job.name}",
        lambda job: append_line(records, run_apart(job, Limits(seconds))),
    )


@app.command(show=False)
def member(
    zoo: str,
    name: str,
    notes: Path,
    *,
    data_root: DataRoot | None = None,
    memory_gb: float = Limits.memory_gb,
    onnx_seconds: int = Limits.onnx_seconds,
) -> None:
    """Compare both on one network in this process."""
    limit_memory(memory_gb)
    settings = Settings(Path("exported"), data_root)
    found = compare(lambda: ZOOS[zoo].build(name, settings), partial(note, notes))
    note(notes, found | {"status": "compared"})


def _missing(networks: set[str]) -> dict[str, str]:
    """Return why networks cannot be had: a package that carries one is not there."""
    wanted = {name: carried for name, carried in CARRIED.items() if name in networks}
    found = {
        name: next(filter(None, (c.absence for c in each)), "") for name, each in wanted.items()
    }
    return {name: reason for name, reason in found.items() if reason}


def _away(hosts: set[str]) -> dict[str, str]:
    """Return why machines cannot be measured by ssh, of those that cannot."""
    found = {}
    for host in hosts:
        try:
            ask_target(read_host(host))
        except CompressorError as error:
            found[host] = str(error)
    return found


def _overview(known: set[str]) -> Table:
    table = Table(title="studies", title_justify="left")
    for header in ("name", "what it compares", "trials with a record", "hours from nothing, about"):
        table.add_column(header)
    for name, study in STUDIES.items():
        keys = {row.trial.key for row in study.rows}
        table.add_row(name, study.about, f"{len(keys & known)} of {len(keys)}", f"{study.hours:g}")
    return table


def _commit() -> str:
    """Return the last commit that changed the product, with a + where its files differ from it."""

    def ask(*words: str) -> str:
        found = subprocess.run(("git", *words), capture_output=True, text=True, check=False)
        return found.stdout.strip()

    changed = "+" if ask("status", "--porcelain", "--", "compressor") else ""
    return (ask("log", "-1", "--format=%h", "--", "compressor") or "unknown") + changed


if __name__ == "__main__":
    sys.exit(app())
