"""The pages of docs/results that the studies write: templates with tables between the words."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tools.jsonl import read_trials
from tools.studies import coverage_table
from tools.studies.studies import STUDIES
from tools.studies.tables import Records, clock_table, entries, machines, study_table, trials_left
from tools.studies.trial import OURS, RIVAL, Trial
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
    made = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True
    )
    shown: dict[str, Any] = {
        "study": partial(_study, records),
        "ahead": partial(_ahead, records, members),
        "coverage": partial(coverage_table.to_markdown, members),
    }
    return made.get_template(name).render(shown).rstrip() + "\n"


def _study(records: Records, name: str) -> str:
    """Return all that is known of a study: its tables, where they were made, and what is open."""
    study = STUDIES[name]
    own = [records[row.trial.key] for row in study.rows if row.trial.key in records]
    parts = [study_table(study, records), clock_table(study, records), machines(own)]
    if left := trials_left(study, records):
        command = f"`python -m tools.studies --data-root FOLDER --only '{name}'`"
        parts.append(f"Open: {left} of {left + len(own)} trials ({command}).")
    return "\n\n".join(part for part in parts if part)


def _ahead(records: Records, members: list[Any]) -> str:
    """Return what the records say of where Torch-Pruning is ahead of us, as a list."""
    found = [line for study in STUDIES.values() for line in _ahead_in(study, records)]
    found += coverage_table.ahead(members)
    return "\n".join(f"- {line}" for line in found or ["nowhere in what was run."])


def _ahead_in(study: Any, records: Records) -> list[str]:
    """Compare the best of either tool where both have a row of a network at a budget."""
    lines = []
    groups: dict[Any, dict[str, Any]] = {}
    for entry in entries(study, records):
        at = (entry.trial.network, entry.trial.options["ratio"])
        groups.setdefault(at, {}).setdefault(entry.trial.tool, []).append(entry)
    for (network, ratio), tools in groups.items():
        if {OURS, RIVAL} <= tools.keys():
            where = f"{network} at {1 / (1 - ratio):.3g}× fewer MACs"
            for words, of in (("top-1", _accuracy), ("fewer parameters", _params)):
                ours, theirs = (max(map(of, tools[tool])) for tool in (OURS, RIVAL))
                if theirs > ours * 1.0005:
                    lines.append(f"{words}, {where}: {theirs:.2f} and not {ours:.2f}.")
    return lines


def _accuracy(entry: Any) -> float:
    return mean(entry.values("last") or [0.0])


def _params(entry: Any) -> float:
    return mean(params for _, params in entry.sizes)
