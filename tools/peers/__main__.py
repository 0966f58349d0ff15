"""The command line of the comparison."""

from __future__ import annotations

import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from cyclopts import App

from tools.options import DataRoot
from tools.peers.data import DATA
from tools.peers.studies import STUDIES
from tools.peers.table import to_markdown
from tools.progress import each
from tools.training.run import Runner
from tools.training.trial import Trial, append
from tools.training.trial import read as read_trials
from tools.zoo.members import Settings, zoos
from tools.zoo.runner import Job, Limits, Record, limit_memory, note, read, run_apart
from tools.zoo.runner import append as append_member

RECORDS = Path("docs/results/peers.jsonl")
COVERAGE = Path("docs/results/peers-coverage.jsonl")
ZooName = Literal["transformers", "data", "timm", "torchvision", "ultralytics"]

app = App(name="tools.peers", help=__import__("tools.peers").peers.__doc__)


@app.default
def run(
    *,
    data_root: DataRoot | None = None,
    only: tuple[Literal["coverage", "accuracy"], ...] = ("accuracy", "coverage"),
    zoo: tuple[ZooName, ...] = ("transformers", "data", "torchvision", "timm"),
    name: str = "*",
    out: Path = RECORDS,
    coverage: Path = COVERAGE,
    scratch: Path = Path("exported/peers"),
    seconds: int = 600,
) -> int:
    """Run the trials that the records do not have yet.

    Parameters
    ----------
    data_root
        Folder with the trained weights and their data.
    only
        coverage, accuracy.
    zoo
        Zoos that are covered.
    name
        Glob of networks.
    out
        Records of accuracy, one line per trial.
    coverage
        Records of coverage, one line per network.
    scratch
        Folder for what is trained here, and for what unfinished trainings have reached.
    seconds
        Time limit of a network in coverage.
    """
    if data_root is None:
        print("where is the data? give --data-root FOLDER or set COMPRESSOR_DATA", file=sys.stderr)
        return 2
    scratch.mkdir(parents=True, exist_ok=True)
    if "accuracy" in only:
        _accuracy(data_root, scratch, out, name)
    if "coverage" in only:
        _coverage(Settings(scratch, data_root), zoo, coverage, name, Limits(seconds))
    return 0


def _accuracy(root: Path, scratch: Path, out: Path, name: str) -> None:
    from tools.peers.incumbent import METHODS_HERE

    known = read_trials(out)
    todo = [t for t in STUDIES["accuracy"] if t.key not in known and fnmatchcase(t.network, name)]
    runners: dict[str, Runner] = {}

    def one(trial: Trial) -> None:
        if trial.network not in runners:
            runners.clear()
            data = DATA[trial.network](root, scratch)
            folder = scratch / f"{trial.network}.unfinished"
            runners[trial.network] = Runner(data, folder, METHODS_HERE, STUDIES)
        append(out, trial, runners[trial.network].run(trial))

    each(todo, lambda t: f"{t.network}: {t.method or 'latency'}", one)


def _coverage(
    settings: Settings, wanted: tuple[str, ...], out: Path, name: str, limits: Limits
) -> None:
    known, found = read(out), zoos()
    given = ("--cache", str(settings.cache), "--data-root", str(settings.data_root))
    todo = [
        Job(zoo, member, given, "tools.peers")
        for zoo in wanted
        for member in found[zoo].smallest_first(found[zoo].names(settings))
        if (zoo, member) not in known and fnmatchcase(member, name)
    ]
    each(
        todo,
        lambda job: f"{job.zoo}: {job.name}",
        lambda job: append_member(out, run_apart(job, limits)),
    )


@app.command
def table(records: Path = RECORDS, coverage: Path = COVERAGE, *, out: Path | None = None) -> None:
    """Print what was found as a page, or write it to `out`."""
    page = to_markdown(list(read_trials(records).values()), list(read(coverage).values()))
    if out is None:
        print(page)
    else:
        out.write_text(page, encoding="utf-8")


@app.command(show=False)
def member(
    zoo: ZooName,
    name: str,
    notes: Path,
    *,
    cache: Path = Path(),
    data_root: DataRoot | None = None,
    memory_gb: float = Limits.memory_gb,
    onnx_seconds: int = Limits.onnx_seconds,
) -> None:
    """Compare both on one network in this process; the run starts one such process each."""
    from tools.peers.coverage import compared

    limit_memory(memory_gb)
    settings = Settings(cache, data_root)

    def tell(record: Record) -> None:
        note(notes, record)

    found = compared(lambda: zoos()[zoo].build(name, settings), tell)
    tell(found | {"status": "compared"})


if __name__ == "__main__":
    sys.exit(app())
