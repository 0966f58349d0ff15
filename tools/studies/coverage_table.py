"""What both tools did with the networks of the zoo, as a part of a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from tools.markdown import table

Record = dict[str, Any]

TOOLS: Mapping[str, str] = {"ours": "ours", "torch_pruning": "Torch-Pruning"}
SECONDS: Mapping[str, str] = {"analyse_s": "analysis", "slice_s": "slicing"}
OUTCOMES: Mapping[tuple[bool, bool], str] = {
    (True, True): "Both pass",
    (True, False): "Only ours passes",
    (False, True): "Only Torch-Pruning passes",
    (False, False): "Neither passes",
}


def to_markdown(records: Sequence[Record]) -> str:
    """Return totals, names by outcome, seconds, failures with reasons, and what was cut off."""
    found = [record for record in records if "ours" in record]
    parts = [*_totals(found), *_named(found), *_seconds(found), *_failures(found)]
    if cut := [_name(r) for r in records if "ours" not in r]:
        parts.append(f"Ended before either was done: {', '.join(cut)}.")
    return "\n\n".join(parts) or "Open: `python -m tools.studies coverage --data-root FOLDER`."


def ahead(records: Sequence[Record]) -> Iterator[str]:
    """Yield lines on where Torch-Pruning is quicker, or passes alone."""
    both = _outcomes(records).get((True, True), [])
    for key, words in SECONDS.items():
        ours, theirs = (median([r[tool][key] for r in both] or [0]) for tool in TOOLS)
        if theirs < ours:
            yield f"{words} takes {theirs:.2f} s and not {ours:.2f} s (median)."
    if alone := _outcomes(records).get((False, True)):
        yield f"it alone passes on {', '.join(map(_name, alone))}."


def _name(record: Record) -> str:
    return f"{record['zoo']}/{record['name']}"


def _passes(record: Record, tool: str) -> bool:
    return bool(record.get(tool, {}).get("status") == "passed")


def _outcomes(records: Sequence[Record]) -> dict[tuple[bool, bool], list[Record]]:
    found: dict[tuple[bool, bool], list[Record]] = {}
    for record in records:
        both = _passes(record, "ours"), _passes(record, "torch_pruning")
        found.setdefault(both, []).append(record)
    return found


def _totals(records: Sequence[Record]) -> Iterator[str]:
    rows = []
    for zoo in dict.fromkeys(r["zoo"] for r in records):
        members = [r for r in records if r["zoo"] == zoo]
        counts = {outcome: len(each) for outcome, each in _outcomes(members).items()}
        both, ours, theirs, _ = (counts.get(outcome, 0) for outcome in OUTCOMES)
        numbers = (len(members), both + ours, both + theirs, ours, theirs)
        rows.append([zoo, *map(str, numbers)])
    head = ["zoo", "networks", *(f"{name} passes" for name in TOOLS.values())]
    if rows:
        yield table([*head, "only ours", "only Torch-Pruning"], rows)


def _named(records: Sequence[Record]) -> Iterator[str]:
    """Say who was run, since all others of the zoo are open."""
    outcomes = _outcomes(records)
    for outcome, words in OUTCOMES.items():
        if outcome in outcomes:
            yield f"{words}: {', '.join(map(_name, outcomes[outcome]))}."
    if records:
        yield "All other members of the zoo are open: not run yet."


def _seconds(records: Sequence[Record]) -> Iterator[str]:
    both = _outcomes(records).get((True, True), [])
    if not both:
        return
    rows = [
        [name, *(_range([r[tool][key] for r in both]) for key in (*SECONDS, "removed"))]
        for tool, name in TOOLS.items()
    ]
    yield f"Median and range over the {len(both)} networks on which both pass:"
    yield table(["tool", *(f"{w}, s" for w in SECONDS.values()), "share of MACs removed"], rows)


def _range(numbers: Sequence[float]) -> str:
    return f"{median(numbers):.2f} ({min(numbers):.2f} to {max(numbers):.2f})"


def _failures(records: Sequence[Record]) -> Iterator[str]:
    for tool, name in TOOLS.items():
        rows = [
            [r["zoo"], r["name"], _reason(r[tool]["error"])]
            for r in records
            if tool in r and not _passes(r, tool)
        ]
        if rows:
            yield f"{name} fails:\n\n{table(['zoo', 'network', 'reason'], rows)}"
    machines = Counter((r["machine"], r["threads"], r["date"]) for r in records)
    if machines:
        said = "; ".join(f"{m}, threads of torch: {t}, {day}" for m, t, day in machines)
        named = ", ".join(f"{name} {v}" for name, v in records[0]["versions"].items())
        yield f"Run on {said}; {named}."


def _reason(error: Mapping[str, str]) -> str:
    kind = "" if error["kind"] == "WrongError" else f"{error['kind']}: "
    return f"{kind}{error['first_line'][:140]}"
