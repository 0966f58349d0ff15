"""The command line of the zoo."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tools.jsonl import append_line
from tools.options import DataRoot
from tools.zoo.members import Settings
from tools.zoo.runner import Job, Limits, circumstances, read, run_all, run_here
from tools.zoo.table import to_markdown
from tools.zoo.zoos import ZOOS

ZooName = Literal["transformers", "data", "timm", "torchvision", "ultralytics"]

app = App(name="tools.zoo", help="Compress whole zoos of networks and check every result.")
console = Console()


@app.default
def run(
    *,
    only: Annotated[tuple[ZooName, ...], Parameter(consume_multiple=True)] = (),
    name: str = "*",
    out: Path = Path("zoo.jsonl"),
    jobs: int = 1,
    again: Literal["none", "failed", "all"] = "none",
    data_root: DataRoot | None = None,
    seconds: int = Limits.seconds,
    memory_gb: float = Limits.memory_gb,
    onnx_seconds: int = Limits.onnx_seconds,
) -> int:
    """Run the members that `out` does not know yet.

    Parameters
    ----------
    only
        Zoos; default all.
    name
        Glob of members' names.
    out
        File of records, one line per member; a second run goes on where the first stopped.
    jobs
        Processes at a time.
    again
        Which of the known members to run once more.
    data_root
        Folder with trained weights.
    seconds
        Time limit of a member.
    memory_gb
        Memory limit of a member.
    onnx_seconds
        Time limit of the ONNX export and its check.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    settings = Settings(out.resolve().parent, data_root)
    wanted = _wanted(settings, only, name, out, again)
    limits = Limits(seconds, memory_gb, onnx_seconds)
    counts = {"passed": 0, "failed": 0}
    columns = (
        *(TextColumn("{task.description}"), BarColumn()),
        *(MofNCompleteColumn(), TimeElapsedColumn()),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("zoo", total=len(wanted))

        def tell(record: dict[str, object]) -> None:
            counts[str(record["status"])] += 1
            progress.console.print(_line(record), markup=False, highlight=False, soft_wrap=True)
            progress.update(task, advance=1, description=f"zoo: {counts['failed']} failed")

        run_all(wanted, out, limits, jobs, tell)
    console.print(f"{counts['passed']} passed, {counts['failed']} failed; {out}")
    return 1 if counts["failed"] else 0


def _wanted(
    settings: Settings, only: tuple[str, ...], name: str, out: Path, again: str
) -> list[Job]:
    known = read(out)
    root = settings.data_root
    arguments = ("--cache", str(settings.cache), *(("--data-root", str(root)) if root else ()))
    found: list[Job] = []
    for zoo, members in ZOOS.items():
        if only and zoo not in only:
            continue
        left_out = members.skipped(settings)
        for skipped, reason in left_out.items():
            if (zoo, skipped) not in known and fnmatchcase(skipped, name):
                record = {"zoo": zoo, "name": skipped, "status": "skipped", "reason": reason}
                append_line(out, record | circumstances())
        for member in members.names(settings):
            status = known.get((zoo, member), {}).get("status", "skipped")
            again_too = again == "all" or status == "skipped" or status == again
            if member not in left_out and fnmatchcase(member, name) and again_too:
                found.append(Job(zoo, member, arguments))
    return found


def _line(record: dict[str, object]) -> str:
    head = f"{record['zoo']:12s} {record['name']!s:34s} {record['status']!s:7s}"
    tail = f"{record['wall_seconds']} s"
    error = record.get("error")
    if isinstance(error, dict):
        return f"{head} {record.get('stage')}: {error['kind']}: {error['first_line']} ({tail})"
    return (
        f"{head} -{float(str(record['removed'])):.0%} {record['form']}"
        f" twin {record['twin']} ({tail})"
    )


@app.command
def table(
    records: Path = Path("docs/results/zoo.jsonl"), *, out: Path = Path("docs/zoo.md")
) -> None:
    """Write what a run found as a page.

    Parameters
    ----------
    records
        The file of a run.
    out
        The page.
    """
    found = list(read(records).values())
    out.write_text(to_markdown(found), encoding="utf-8")
    console.print(f"{len(found)} members in {out}")


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
    """Run one member in this process; the run starts one such process each."""
    settings = Settings(cache, data_root)
    limits = Limits(memory_gb=memory_gb, onnx_seconds=onnx_seconds)
    run_here(zoo, name, lambda: ZOOS[zoo].build(name, settings), notes, limits)


if __name__ == "__main__":
    app()
