"""The command line: run models, write the page."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from tools.jsonl import append_line
from tools.operators.collecting import run_forked
from tools.operators.table import to_markdown
from tools.progress import each
from tools.zoo.members import Settings, Zoo
from tools.zoo.runner import Job, Limits, circumstances, read
from tools.zoo.zoos import ZOOS

Library = Literal["transformers", "torchvision", "timm"]
LIBRARIES: tuple[Library, ...] = ("transformers", "torchvision", "timm")
PAGE = Path("docs/results/operators.md")
RECORDS = PAGE.with_suffix(".jsonl")

app = App(name="tools.operators", help=__import__("tools.operators").operators.__doc__)


@app.default
def run(
    *,
    only: Annotated[tuple[Library, ...], Parameter(consume_multiple=True)] = LIBRARIES,
    name: str = "*",
    out: Path = RECORDS,
    page: Path = PAGE,
    scratch: Path = Path("exported"),
    seconds: int = 120,
    memory_gb: float = 2.5,
) -> int:
    """Trace and analyse the models that the records do not have yet, and those that failed, and
    write the page.

    Parameters
    ----------
    only
        Libraries.
    name
        Glob of models' names.
    out
        File of records, one line per model.
    page
        The page.
    scratch
        Folder for the list of timm's families.
    seconds
        Time limit of a model.
    memory_gb
        Memory limit of a model.
    """
    for folder in (scratch, out.parent):
        folder.mkdir(parents=True, exist_ok=True)
    settings, limits = Settings(scratch), Limits(seconds, memory_gb)
    each(
        [job for library in only for job in _wanted(library, ZOOS[library], settings, name, out)],
        lambda job: f"{job.zoo}: {job.name}",
        lambda job: append_line(out, run_forked(job, scratch, limits)),
    )
    return table(out, page=page)


def _wanted(library: str, zoo: Zoo, settings: Settings, name: str, out: Path) -> list[Job]:
    """Models that have no record or failed; what the zoo leaves out is recorded as such."""
    left_out = zoo.skipped(settings)
    known = {key for key, record in read(out).items() if record["status"] != "failed"}
    for skipped, reason in left_out.items():
        if (library, skipped) not in known and fnmatchcase(skipped, name):
            record = {"zoo": library, "name": skipped, "status": "skipped", "reason": reason}
            append_line(out, record | circumstances())
    return [
        Job(library, member)
        for member in zoo.smallest_first(zoo.names(settings))
        if member not in left_out and fnmatchcase(member, name) and (library, member) not in known
    ]


@app.command
def table(records: Path = RECORDS, *, page: Path = PAGE) -> int:
    """Write what a run found as a page, and print it.

    Parameters
    ----------
    records
        The file of a run.
    page
        The page.
    """
    text = to_markdown(list(read(records).values()))
    page.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    app()
