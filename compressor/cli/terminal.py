"""Show a run on the terminal: a line per stage, a bar within it, notes, errors."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from compressor.errors import CompressorError
from compressor.watch import Tick

if TYPE_CHECKING:
    from compressor.score import Criterion

_WIDTH = 28
_NEEDED = {"weights": "", "data": "data", "labels": "data, labels"}


def criteria_table(criteria: Mapping[str, Criterion]) -> Table:
    """Build the table of criteria to choose from, one per row."""
    table = Table(title="criteria", title_justify="left")
    for header in ("name", "measures", "needs", "paper"):
        table.add_column(header, overflow="fold", no_wrap=header == "name")
    for name, criterion in criteria.items():
        cells = (name, criterion.measures, _NEEDED[criterion.needs], criterion.paper)
        table.add_row(*map(Text, cells))
    return table


def time_left(done: int, total: int, seconds: float) -> str:
    """Return in words how long a stage still takes, if it goes on as it went for some seconds.

    It is "" where nothing is done yet, or nothing is left.
    """
    if not 0 < done < total:
        return ""
    left = round(seconds * (total - done) / done)
    minutes, rest = divmod(left, 60)
    return f"{minutes} min {rest:02d} s left" if minutes else f"{rest} s left"


class Terminal:
    """A watch that shows stages on a console; plain lines where that is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def stage(self, name: str) -> Iterator[Tick]:
        begin, last = time.perf_counter(), ""
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn())
        with Progress(
            *columns,
            TaskProgressColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not self._console.is_terminal,
        ) as progress:
            task = progress.add_task(f"{name:<{_WIDTH}}", total=None, left="", note="")

            def tick(done: int, total: int, note: str) -> None:
                nonlocal last
                last = note
                left = time_left(done, total, time.perf_counter() - begin)
                progress.update(task, completed=done, total=total, left=left, note=note)

            yield tick
        seconds = time.perf_counter() - begin
        self._line(f"{name:<{_WIDTH}} {seconds:7.1f} s  {last}".rstrip())

    def note(self, text: str) -> None:
        self._line(f"note: {text}", style="yellow")

    def error(self, error: CompressorError) -> None:
        """Show what went wrong, where, the consequence and the next step."""
        first, *rest = str(error).splitlines()
        self._line(f"error: {first}", style="bold red")
        for line in rest:
            self._line(line)

    def _line(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style=style), soft_wrap=True)
