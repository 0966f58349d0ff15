"""docs/results/operators.md from the records of a run."""

from __future__ import annotations

from collections.abc import Sequence

from compressor.graph.rules import RULES
from tools import markdown
from tools.zoo.table import Record, circumstances_of

INTRODUCTION = """\
Written by `python -m tools.operators table`; run by `python -m tools.operators`.

Models of torchvision, timm and transformers with random weights, those of [the zoo](../zoo.md), are
traced and analysed; nothing is sliced. An operator without a rule protects all that reaches it. Of
each such operator: in how many models it is called, how often, and how many dimensions of
parameters stay because of it, with how many positions in all (where several operators ask for the
same dimension, the first one has it). *A rule since*: written after the model was analysed.
"""

EXAMPLES = 3
"""Models that a row names."""


def to_markdown(records: Sequence[Record]) -> str:
    """The page: what ran, the operators, what could not be traced, what was left out."""
    ran = [r for r in records if r["status"] == "ran"]
    parts = ["# Operators without a rule", INTRODUCTION, circumstances_of(records)]
    parts += [_totals(records), _operators(ran)]
    for title, status in (("Not analysed:", "failed"), ("Left out:", "skipped")):
        rows = [[r["zoo"], r["name"], _why(r)] for r in records if r["status"] == status]
        if rows:
            parts += [title, markdown.table(["library", "model", "why"], rows)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _totals(records: Sequence[Record]) -> str:
    rows = []
    for zoo in dict.fromkeys(r["zoo"] for r in records):
        members = [r for r in records if r["zoo"] == zoo and r["status"] != "skipped"]
        ran = [r for r in members if r["status"] == "ran"]
        whole = sum(not r["operators"] for r in ran)
        rows.append([zoo, f"{len(ran)} of {len(members)}", str(whole)])
    return markdown.table(["library", "models analysed", "with rules for all they call"], rows)


def _operators(ran: Sequence[Record]) -> str:
    names = {name for record in ran for name in record["operators"]}
    rows = sorted((_row(name, ran) for name in names), key=lambda row: (-row[1], -row[4], row[0]))
    if not rows:
        return "Every operator that they call has a rule."
    head = ["operator", "models", "calls", "dimensions", "positions", "a rule since", "for example"]
    return markdown.table(
        head,
        [
            [f"`{name}`", *map(str, numbers), "yes" if name in RULES else "", examples]
            for name, *numbers, examples in rows
        ],
    )


def _row(name: str, ran: Sequence[Record]) -> tuple[str, int, int, int, int, str]:
    callers = [r for r in ran if name in r["operators"]]
    calls, dimensions, positions = (
        sum(r["operators"][name][key] for r in callers)
        for key in ("calls", "dimensions", "positions")
    )
    examples = ", ".join(r["name"] for r in callers[:EXAMPLES])
    return name, len(callers), calls, dimensions, positions, examples


def _why(record: Record) -> str:
    error = record.get("error")
    return f"{error['kind']}: {error['first_line']}" if error else str(record["reason"])
