"""Write docs/zoo.md from the records of a run: what passed, and what stands out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from tools import markdown

Record = dict[str, Any]

INTRODUCTION = """\
Networks of torchvision, timm and transformers, and trained ones (*data*), are compressed without a
hint. One **passes** when all of this holds:

- its weights are drawn anew (trained ones keep theirs), and half of its MACs are removed at random,
  or as much as can go;
- the smaller program runs, and its outputs have the shapes that they had;
- it equals its masked twin in float64 (the dense network with zeros where channels were dropped; a
  statistic such as LayerNorm that crosses a dropped axis is computed on the kept channels);
- ONNX Runtime computes the same from its file;
- its MACs and parameters, counted on the network, are exactly those that were predicted;
- if it is trained, removing 5 % of its MACs without any repair costs little.

Every network's numbers are in [results/zoo.jsonl](results/zoo.jsonl), a line each: MACs and
parameters before and after, differences from twin and ONNX file, seconds per stage, form, what is
protected and why.

    python -m tools.zoo --out docs/results/zoo.jsonl                      # what has no record yet
    python -m tools.zoo --out docs/results/zoo.jsonl --again all --only timm --name 'resn*'
    python -m tools.zoo table                                             # this page
"""

MOST = 8
"""Rows of each list on the page; the records have all."""


def to_markdown(records: Sequence[Record]) -> str:
    """Return the page: totals per zoo, what failed and why, and what else stands out."""
    passed = [r for r in records if r["status"] == "passed"]
    parts = ["# The zoo", INTRODUCTION, _totals(records), circumstances_of(records)]
    parts += [_older(passed), "## What failed, and why", _failed(records)]
    lines = [*(_list(*each, passed) for each in _LISTS), _left_out(records)]
    parts += ["## What stands out", "\n".join(filter(None, lines)) or "Nothing."]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def circumstances_of(records: Sequence[Record]) -> str:
    """Return a sentence on when, on what and with which versions records were made."""
    if not records:
        return "Nothing was run yet."
    dates = sorted({date for r in records for date in r["date"].split(" to ")})
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


def _totals(records: Sequence[Record]) -> str:
    rows = []
    for zoo in dict.fromkeys(r["zoo"] for r in records):
        members = [r for r in records if r["zoo"] == zoo]
        count = Counter(r["status"] for r in members)
        passed = [r for r in members if r["status"] == "passed"]
        run = count["passed"] + count["failed"]
        classes = [r for r in passed if r["form"] == "class"]
        helped = sum(bool(r["stand_ins"]) for r in classes)
        rows.append(
            [
                zoo,
                f"{count['passed']} of {run}" + (f" ({count['passed'] / run:.0%})" if run else ""),
                f"{len(classes)} of {len(passed)}" + (f", {helped} with stand-ins" * bool(helped)),
                f"{sum(map(_is_halved, passed))} of {len(passed)}",
                str(count["skipped"]),
            ]
        )
    return markdown.table(
        ["zoo", "passed", "the user's class comes back", "reached half", "left out"], rows
    )


def _is_halved(record: Record) -> bool:
    return bool(record["removed"] >= 0.495)


def _older(passed: Sequence[Record]) -> str:
    """Say which records have differences by an earlier measure; "" if none has."""
    older = Counter(r["zoo"] for r in passed if "comparison" in r)
    total = Counter(r["zoo"] for r in passed)
    if not older:
        return ""
    zoos = ", ".join(f"{n} of {total[zoo]} of {zoo}" for zoo, n in older.items())
    measures = dict.fromkeys(r["comparison"] for r in passed if "comparison" in r)
    return (
        "**Not all rows are of one kind.** The present comparison judges every element of an "
        "output on the scale of what varies there. Measured before it, and not run again since: "
        f"{zoos}. Their differences are {' or '.join(measures)}, "
        "which says less where an output mixes large and small numbers; their numbers are rounded."
    )


def _failed(records: Sequence[Record]) -> str:
    failed = [r for r in records if r["status"] == "failed"]
    rows = [
        [
            f"{r['zoo']}: {r['name']}",
            r.get("stage") or "start",
            f"{r['error']['kind']}: {r['error']['first_line']}",
            r["error"]["where"],
        ]
        for r in failed[:MOST]
    ]
    if not rows:
        return "No network that was run failed."
    table = markdown.table(["network", "stage", "what", "where"], rows)
    return table + (f"\n\nand {len(failed) - MOST} more." if len(failed) > MOST else "")


_LISTS: tuple[tuple[str, Callable[[Record], bool], Callable[[Record], str]], ...] = (
    (
        "Delivered as a program, since a part of the class could not follow",
        lambda r: r["form"] != "class" and r["twin"] != "too large",
        lambda r: str(r["obstacle"]).replace(" could not follow", ""),
    ),
    (
        "Too large for twin and ONNX file, and only sliced, run and counted",
        lambda r: r["twin"] == "too large",
        lambda r: "",
    ),
    (
        "Short of half",
        lambda r: not _is_halved(r),
        lambda r: f"{r['removed']:.1%}; {_reasons(r)}",
    ),
    (
        "Halved with residual streams, since channels and heads alone did not suffice",
        lambda r: "stream" in r["roles"],
        lambda r: "",
    ),
)
"""Of networks that passed: a list's title, who is in it, and what is said of each."""


def _list(
    title: str,
    belongs: Callable[[Record], bool],
    words: Callable[[Record], str],
    passed: Sequence[Record],
) -> str:
    """Return a line on the networks that belong to a list; "" if none does."""
    found = [r for r in passed if belongs(r)]
    named = [f"{r['name']} ({words(r)})" if words(r) else r["name"] for r in found[:MOST]]
    more = f" and {len(found) - MOST} more" if len(found) > MOST else ""
    return f"- **{title}**: {markdown.cell('; '.join(named))}{more}." if found else ""


def _reasons(record: Record) -> str:
    return ", ".join(f"{n} × {reason}" for reason, n in record["protections"].items())


def _left_out(records: Sequence[Record]) -> str:
    skipped = Counter(r["reason"] for r in records if r["status"] == "skipped")
    more = f"; {len(skipped) - MOST} more reasons" if len(skipped) > MOST else ""
    reasons = "; ".join(f"{reason} ({n})" for reason, n in skipped.most_common(MOST))
    return f"- **Left out**: {markdown.cell(reasons)}{more}." if skipped else ""
