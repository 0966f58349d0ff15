"""The pages of docs/results that the studies write: templates with tables between the words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tools.jsonl import read_trials
from tools.studies import coverage_table
from tools.studies.networks import BY_FIDELITY, IN_NATS
from tools.studies.packages import table as package_table
from tools.studies.studies import STUDIES, Study
from tools.studies.tables import (
    Entry,
    Records,
    clock_table,
    entries,
    generation_table,
    study_table,
    trials_left,
)
from tools.studies.trial import OURS, RIVAL, Trial
from tools.surroundings import measured_on
from tools.zoo.runner import read

TEMPLATES = Path(__file__).parent / "templates"
NAMES = tuple(sorted(path.name for path in TEMPLATES.glob("*.md")))

AS_QUICK = 1.02
"""What a measured time may be of another one to count as no longer: the clock is no steadier."""


def page(name: str, folder: Path) -> str:
    """Return a page's text from the records that lie in a folder.

    Args:
        name: One of NAMES.
        folder: Holds studies.jsonl and peers-coverage.jsonl, as far as something was run.
    """
    records = read_trials(folder / "studies.jsonl", Trial)
    members = list(read(folder / "peers-coverage.jsonl").values())
    made = Environment(loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined)
    shown: dict[str, Any] = {
        "section": partial(_section, records),
        "open": partial(_open, records),
        "ahead": partial(_ahead, records, members),
        "packages": partial(_packages, records),
        "coverage": partial(coverage_table.to_markdown, members),
    }
    text = made.get_template(name).render(shown)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def _section(records: Records, name: str, title: str, about: str) -> str:
    """Return a study's tables under a title, and where they were made; "" if nothing was run."""
    study = STUDIES[name]
    own = [records[row.trial.key] for row in study.rows if row.trial.key in records]
    makers = (study_table, clock_table, generation_table)
    tables = [made for make in makers if (made := make(study, records))]
    parts = [f"## {title}", about.strip(), *tables, measured_on(own)]
    return "\n\n".join(parts) if own else ""


def _packages(records: Records) -> str:
    """Return the part of each package's network that was run."""
    groups: dict[str, list[tuple[str, Trial, Any]]] = {}
    for row in STUDIES["packages"].rows:
        if record := records.get(row.trial.key):
            groups.setdefault(row.trial.network, []).append((row.label, row.trial, record))
    parts = [package_table.to_markdown(network, rows) for network, rows in groups.items()]
    own = [record for rows in groups.values() for *_, record in rows]
    return "\n\n".join([*parts, measured_on(own)])


def _open(records: Records, *names: str) -> str:
    """Return which trials of some studies were not run yet."""
    said = [
        f"{name} ({left} of {len(STUDIES[name].rows)} trials: {STUDIES[name].about})"
        for name in names
        if (left := trials_left(STUDIES[name], records))
    ]
    return f"Open, `python -m tools.studies --only STUDY`: {'; '.join(said)}." if said else ""


def _ahead(records: Records, members: list[Any]) -> str:
    """Return what the records say of where Torch-Pruning is ahead of us, as a list."""
    found = [line for study in STUDIES.values() for line in _ahead_in(study, records)]
    found += coverage_table.ahead(members)
    return "\n".join(f"- {line}" for line in dict.fromkeys(found) or ["nowhere in what was run."])


def _ahead_in(study: Study, records: Records) -> list[str]:
    """Compare the best of either tool where both have a row of a network at a budget.

    A network of theirs that takes longer than ours at a budget of time is none at that budget.
    """
    lines = []
    groups: dict[str, dict[str, list[Entry]]] = {}
    for entry in entries(study, records):
        groups.setdefault(_budget(entry), {}).setdefault(entry.trial.tool, []).append(entry)
    for budget, tools in groups.items():
        ours = tools.get(OURS, [])
        theirs = [e for e in tools.get(RIVAL, []) if _is_as_quick(e, ours)]
        if ours and theirs:
            judged, sign = _judged_by(ours[0].trial.network)
            lines += _compare(f"{judged}, {budget}", _last, sign, ours, theirs)
            lines += _compare(f"fewer parameters, {budget}", _params, 1, ours, theirs)
    return lines


def _is_as_quick(entry: Entry, ours: Sequence[Entry]) -> bool:
    """Return whether a network takes no more of the time than ours, as far as both were timed."""
    shares = [each.share for each in ours if each.share is not None]
    return entry.share is None or not shares or entry.share <= max(shares) * AS_QUICK


def _judged_by(network: str) -> tuple[str, int]:
    """Return what a network is judged by, and 1 where more of it is better, else -1."""
    if network in IN_NATS:
        return "loss", -1
    return ("fidelity" if network in BY_FIDELITY else "top-1"), 1


def _compare(
    words: str,
    value_of: Callable[[Entry], float],
    sign: int,
    ours: Sequence[Entry],
    theirs: Sequence[Entry],
) -> Iterator[str]:
    """Yield a line where the best of theirs is better than the best of ours, as it is shown."""
    own, other = (
        sign * max(sign * round(value_of(each), 2) for each in some) for some in (ours, theirs)
    )
    if sign * other > sign * own:
        yield f"{words}: {other:.2f} and not {own:.2f}."


def _budget(entry: Entry) -> str:
    options = entry.trial.options
    quantity = "of the time" if options.get("of") == "latency" else "of the MACs"
    epochs = options.get("epochs", 0)
    trained = f"{epochs} epoch{'s' if epochs > 1 else ''}" if epochs else "nothing trained"
    return f"{entry.trial.network} without {options['ratio']:.0%} {quantity}, {trained}"


def _last(entry: Entry) -> float:
    return mean(entry.values("last") or [0.0])


def _params(entry: Entry) -> float:
    return mean(params for _, params in entry.sizes)
