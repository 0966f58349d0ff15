"""docs/results/selfcheck.md from the records of checks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tools.surroundings import measured_on

Record = dict[str, Any]

INTRODUCTION = """\
# Self-check

Written by `python -m tools.selfcheck table`; run by `python -m tools.selfcheck`, records in
[selfcheck.jsonl](selfcheck.jsonl), one line per check."""

TEXTS = {
    "determinism": """\
## The same twice

The same command in two processes and two folders, with another order of Python's sets in each:
`plan.json`, `model.onnx`, `model.safetensors`, `model.pt2` and `original.onnx` are the same, byte
for byte. Networks of torchvision have random weights, which the seed draws.""",
    "kills": """\
## Killed at a random moment

SIGKILL to the process group at a moment drawn uniformly from the run's duration (in a forked
process that has everything imported). Afterwards the result is not there, or whole (its files are
those of its report, its bytes are those of a run that nobody killed), or still the earlier one.
Going on (`compress resume` where it trains, else the same command) gives the same bytes, loses no
epoch that had ended, and leaves nothing but the result.""",
    "changes": """\
## Killed before every change of a file

The same right before each opening for writing, renaming, making and removing, one after the
other.""",
    "refusals": """\
## Bad inputs

Files and commands that cannot be meant: the exit status is that of a failure or of misuse, there is
one error that says what, the consequence and the next step, no traceback, and every file is as it
was.""",
    "fuzz": """\
## Damaged at random

Bits flipped, parts cut off, zeroed, doubled, drawn anew; or keys taken out of JSON and values of
other types put there. Each is refused clearly, or what comes of it is the same. *By itself*:
without a report that says what the file was. Weights in files of their own have no
checksum: of those, only the header is damaged. One check is a hundred files.""",
}


def to_markdown(records: Sequence[Record]) -> str:
    """The page; kinds that were not run are left out."""
    parts = [INTRODUCTION]
    for kind, text in TEXTS.items():
        found = [record for record in records if record["trial"]["kind"] == kind]
        if found:
            parts += [text, _totals(found), *_problems(found), _surroundings(found)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _totals(records: Sequence[Record]) -> str:
    rows: dict[str, list[Record]] = {}
    for record in records:
        rows.setdefault(_row_of(record["trial"]), []).append(record)
    lines = ["| what | checks | all well | with problems | |", "|---|---|---|---|---|"]
    for name, found in rows.items():
        bad = sum(bool(record["problems"]) for record in found)
        lines.append(f"| {name} | {len(found)} | {len(found) - bad} | {bad} | {_more(found)} |")
    return "\n".join(lines)


def _row_of(trial: Record) -> str:
    """Bad inputs are one row per group of them."""
    name = str(trial["name"])
    return name.partition(":")[0] if trial["kind"] == "refusals" else name


def _more(records: Sequence[Record]) -> str:
    if "killed" not in records[0]:
        return ""
    dead = [record for record in records if record["killed"]]
    epochs = [record["epoch"] for record in dead if "epoch" in record]
    said = f"{len(dead)} were killed before they ended"
    return said + (f", {len(epochs)} of them after 1 to {max(epochs)} epochs" if epochs else "")


def _problems(records: Iterable[Record]) -> list[str]:
    lines = [
        f"- {record['trial']['name']} {record['trial']['number']}: {problem}"
        for record in records
        for problem in record["problems"]
    ]
    return ["\n".join(lines)] if lines else []


def _surroundings(records: Sequence[Record]) -> str:
    minutes = sum(record["took_s"] for record in records) / 60
    return f"{measured_on(records)} It took {minutes:.0f} minutes."
