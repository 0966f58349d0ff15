"""The pages of docs/results that the studies write: templates with tables between the words."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tools.jsonl import read_trials
from tools.studies import coverage_table
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
    return "\n".join(f"- {line}" for line in found or ["nowhere in what was run."])


def _ahead_in(study: Study, records: Records) -> list[str]:
    """Compare the best of either tool where both have a row of a network at a budget."""
    lines = []
    groups: dict[str, dict[str, list[Entry]]] = {}
    for entry in entries(study, records):
        groups.setdefault(_budget(entry), {}).setdefault(entry.trial.tool, []).append(entry)
    for budget, tools in groups.items():
        if {OURS, RIVAL} <= tools.keys():
            for words, of in (("top-1", _accuracy), ("fewer parameters", _params)):
                ours, theirs = (max(map(of, tools[tool])) for tool in (OURS, RIVAL))
                if theirs > ours * 1.0005:
                    lines.append(f"{words}, {budget}: {theirs:.2f} and not {ours:.2f}.")
    return lines


def _budget(entry: Entry) -> str:
    options = entry.trial.options
    quantity = "of the time" if options.get("of") == "latency" else "of the MACs"
    epochs = f", {options['epochs']} epochs" if options.get("epochs") else ", nothing trained"
    return f"{entry.trial.network} without {options['ratio']:.0%} {quantity}{epochs}"


def _accuracy(entry: Entry) -> float:
    return mean(entry.values("last") or [0.0])


def _params(entry: Entry) -> float:
    return mean(params for _, params in entry.sizes)
