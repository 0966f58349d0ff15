"""Make the empty tables of the commands that look at networks, for the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table


def empty_table(title: str, texts: Iterable[str], numbers: Iterable[str]) -> Table:
    """Make a table without rows: columns of texts, which fold, then numbers to the right."""
    table = Table(title=title, title_justify="left")
    for header in texts:
        table.add_column(header, overflow="fold")
    for header in numbers:
        table.add_column(header, justify="right")
    return table
