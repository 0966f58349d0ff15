"""docs/zoo.md from the records of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

Record = dict[str, Any]

STAGES = {
    "trace": ("trace",),
    "analyse": ("analyse",),
    "slice": ("slice",),
    "ONNX": ("onnx",),
}
HEAD = (
    "member",
    "MACs",
    "removed",
    "parameters",
    "twin",
    "ONNX",
    "s: " + " / ".join(STAGES),
    "form",
    "protected, and why",
)

INTRODUCTION = """\
Written by `python -m tools.zoo table`; run by `python -m tools.zoo`.

A network **passes** when all of this holds: its weights drawn anew (trained ones keep theirs), it
is analysed without hints, half of its MACs are removed (*removed* says what was reached; `+ stream`
where channels and heads alone did not suffice), the program runs and its outputs have the shapes
that they had, it equals its masked twin in float64 (*twin*: the largest relative difference; where
a statistic such as LayerNorm crosses a dropped axis, the twin computes that statistic on the kept
channels), ONNX Runtime agrees (*ONNX*: largest relative difference), MACs and parameters, counted,
are exactly those predicted. Where drawn weights make float32 itself inexact, batch norms are first
re-estimated on the inputs. *form* is the user's own class, by itself or with stand-ins (modules
whose code cannot follow run their traced operators), or the program and the module that could not
follow. MACs are those of one sample, before and after.
"""


def to_markdown(records: Sequence[Record]) -> str:
    """The page: totals, then per zoo what passed, what failed and why, what was left out."""
    zoos = list(dict.fromkeys(r["zoo"] for r in records))
    parts = ["# The zoo", INTRODUCTION, circumstances_of(records), _totals(records, zoos)]
    for zoo in zoos:
        members = [r for r in records if r["zoo"] == zoo]
        parts.append(f"## {zoo}")
        parts += [part for part in (_passed(members), _failed(members), _skipped(members)) if part]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def circumstances_of(records: Sequence[Record]) -> str:
    """A sentence on when, on what and with which versions records were made."""
    if not records:
        return "Nothing was run yet."
    dates = sorted({r["date"] for r in records})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    machines = "; ".join(dict.fromkeys(r["machine"] for r in records))
    threads = ", ".join(dict.fromkeys(str(r["threads"]) for r in records))
    versions: dict[str, list[str]] = {}
    for record in records:
        for name, version in record["versions"].items():
            found = versions.setdefault(name, [])
            found += [] if version in found else [version]
    named = ", ".join(f"{name} {' and '.join(found)}" for name, found in versions.items())
    return f"Run on {when}; {machines}; threads of torch: {threads}; {named}."


def _totals(records: Sequence[Record], zoos: Sequence[str]) -> str:
    rows = []
    for zoo in zoos:
        members = [r for r in records if r["zoo"] == zoo]
        count = Counter(r["status"] for r in members)
        passed = [r for r in members if r["status"] == "passed"]
        run = count["passed"] + count["failed"]
        classes = [r for r in passed if r["form"] == "class"]
        helped = sum(bool(r["stand_ins"]) for r in classes)
        halved = sum(r["removed"] >= 0.495 for r in passed)
        rows.append(
            [
                zoo,
                f"{count['passed']} of {run}" + (f" ({count['passed'] / run:.0%})" if run else ""),
                f"{len(classes)} of {len(passed)}" + (f", {helped} with stand-ins" * bool(helped)),
                f"{halved} of {len(passed)}",
                str(count["skipped"]),
            ]
        )
    return markdown_table(
        ["zoo", "passed", "the user's class comes back", "reached half", "left out"], rows
    )


def _passed(members: Sequence[Record]) -> str:
    rows = [_row(r) for r in members if r["status"] == "passed"]
    return markdown_table(list(HEAD), rows) if rows else ""


def _row(record: Record) -> list[str]:
    protections = record["protections"]
    why = "; ".join(f"{n} × {reason}" for reason, n in list(protections.items())[:4])
    more = len(protections) - 4
    notes = [record["quality"]] if record.get("quality") else []
    return [
        record["name"],
        f"{_number(record['macs'])} → {_number(record['macs_after'])}",
        f"{record['removed']:.1%}" + (" + stream" if "stream" in record["roles"] else ""),
        f"{_number(record['params'])} → {_number(record['params_after'])}",
        _difference(record["twin"]),
        _difference(record["onnx"]),
        " / ".join(_seconds(record, stages) for stages in STAGES.values()),
        "; ".join([_form(record), *notes]),
        why + (f"; {more} more reasons" if more > 0 else ""),
    ]


def _form(record: Record) -> str:
    if record["form"] != "class":
        return f"program: {record['obstacle']}"
    kinds = Counter(record["stand_ins"].values())
    stand_ins = ", ".join(f"{n} × {kind}" for kind, n in kinds.most_common())
    return f"class, stand-ins for {stand_ins}" if stand_ins else "class"


def _failed(members: Sequence[Record]) -> str:
    rows = [
        [
            r["name"],
            r.get("stage") or "start",
            f"{r['error']['kind']}: {r['error']['first_line']}",
            r["error"]["where"],
        ]
        for r in members
        if r["status"] == "failed"
    ]
    return (
        "Failed:\n\n" + markdown_table(["member", "stage", "what", "where"], rows) if rows else ""
    )


def _skipped(members: Sequence[Record]) -> str:
    rows = [[r["name"], r["reason"]] for r in members if r["status"] == "skipped"]
    return "Left out:\n\n" + markdown_table(["member", "why"], rows) if rows else ""


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(head), ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def _number(count: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f}"


def _difference(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.0e}"


def _seconds(record: Record, stages: Sequence[str]) -> str:
    return f"{sum(record['seconds'].get(stage, 0.0) for stage in stages):.1f}"
