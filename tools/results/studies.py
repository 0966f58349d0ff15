"""The studies, the shortest first: their commands, pages, and how long they take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path("docs/results")
ROOT = "DATA"
"""Stands for the folder of data in a command."""


@dataclass(frozen=True)
class Study:
    """Commands are what follows `python -m`; `records` are what a second run goes on from.

    `hours`: by one process on two cores, as it was seen or guessed from a part of it.
    """

    name: str
    what: str
    commands: tuple[tuple[str, ...], ...]
    pages: tuple[Path, ...]
    hours: float
    records: tuple[Path, ...] = ()

    def commands_with(self, root: Path) -> list[list[str]]:
        """With the folder of data in its place."""
        return [[str(root) if w == ROOT else w for w in command] for command in self.commands]

    @property
    def done(self) -> int:
        """Lines of its records."""
        found = (path.read_text(encoding="utf-8") for path in self.records if path.exists())
        return sum(len(text.splitlines()) for text in found)


def _study(
    name: str,
    what: str,
    hours: float,
    run: Sequence[str],
    page: Path,
    *,
    needs_root: bool = True,
    records: Path | None = None,
) -> Study:
    """A tool that keeps records and makes a page of them by its own `table`."""
    tool, kept = f"tools.{run[0]}", records or page.with_suffix(".jsonl")
    root = ("--data-root", ROOT) if needs_root else ()
    return Study(
        name,
        what,
        (
            (tool, *root, *run[1:], "--out", str(kept)),
            (tool, "table", str(kept), "--out", str(page)),
        ),
        (page,),
        hours,
        (kept,),
    )


_EXPORTED = "exported/resnet56"

STUDIES = (
    Study(
        "resnet56",
        "ResNet-56 halved without training: the README's picture (the page is written by hand)",
        (
            (
                *("tools.cifar_resnet", "--data-root", ROOT, "--epochs", "0", "--round-to", "1"),
                *("--out", _EXPORTED, "--force"),
            ),
            ("tools.draw_report", f"{_EXPORTED}/report.json", str(RESULTS / "resnet56.svg")),
        ),
        (RESULTS / "resnet56.svg",),
        0.1,
    ),
    _study(
        "selfcheck", "run twice, killed, damaged, given nonsense", 1.5, ("selfcheck",),
        RESULTS / "selfcheck.md", needs_root=False,
    ),
    _study("latency", "measured, and as a budget", 1.5, ("latency",), RESULTS / "latency.md"),
    _study(
        "reconstruction", "choice and repair without training", 3.0, ("trials",),
        RESULTS / "reconstruction.md",
    ),
    _study("training", "made smaller, then trained", 2.0, ("training",), RESULTS / "training.md"),
    Study(
        "peers",
        "Torch-Pruning beside us",
        (
            ("tools.peers", "--data-root", ROOT),
            ("tools.peers", "table", "--out", str(RESULTS / "peers.md")),
        ),
        (RESULTS / "peers.md",),
        5.0,
        (RESULTS / "peers.jsonl", RESULTS / "peers-coverage.jsonl"),
    ),
    _study(
        "zoo", "whole zoos of networks", 6.0, ("zoo",), Path("docs/zoo.md"),
        records=RESULTS / "zoo.jsonl",
    ),
)  # fmt: skip
