"""Write the guide's table of what keeps its channels, from the rules themselves.

python -m tools.refusals
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from compressor.graph.rules import FAMILIES, Refusal
from compressor.graph.rules.reasons import FROM_THE_NETWORK, REASONS

PAGE = Path(__file__).parent.parent / "docs" / "guide" / "operators.md"
BEGIN, END = "<!-- refusals: written by python -m tools.refusals -->", "<!-- /refusals -->"


def section() -> str:
    """The Markdown between the marks."""
    count = sum(len(family.RULES) for family in FAMILIES.values())
    lines = [
        f"Rules exist for {count} operators (ATen overloads). They keep positions that mean",
        "something by themselves, for the reasons that the report repeats:",
        "",
        "| operators | rules | what they keep, and why |",
        "|---|---:|---|",
        *(_row(name, family) for name, family in FAMILIES.items()),
        f"| the network itself | | {'; '.join(FROM_THE_NETWORK)} |",
        "",
        "These are known, and refused: everything that they touch is kept.",
        "",
        *(f"- {reason}: {_names(names)}" for reason, names in _refused().items()),
    ]
    return "\n".join(lines)


def _row(name: str, family: ModuleType) -> str:
    return f"| {name} | {len(family.RULES)} | {'; '.join(_reasons(family)) or 'nothing'} |"


def _reasons(family: ModuleType) -> list[str]:
    """The reasons that a family's file takes from the table."""
    return [text for name, text in REASONS.items() if vars(family).get(name) == text]


def _refused() -> dict[str, list[str]]:
    """Reason -> the operators of which no dimension can be followed."""
    found: dict[str, list[str]] = {}
    for family in FAMILIES.values():
        for name, rule in family.RULES.items():
            if isinstance(rule, Refusal):
                found.setdefault(rule.reason, []).append(name.partition(".")[0])
    return found


def _names(operators: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in dict.fromkeys(operators))


def written_into(text: str) -> str:
    """The page's text with the part between its marks written anew."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit(f"the page has lost a mark: {BEGIN} ... {END} (refusals go between)")
    marked = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.S)
    return marked.sub(lambda _: f"{BEGIN}\n{section()}\n{END}", text)


if __name__ == "__main__":
    PAGE.write_text(written_into(PAGE.read_text()))
