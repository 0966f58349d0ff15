"""Trials one after the other, with a bar that says which one runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

Trial = TypeVar("Trial")


def each(
    trials: Iterable[Trial], words: Callable[[Trial], str], run: Callable[[Trial], None]
) -> None:
    """Run all of them."""
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    todo = list(trials)
    with Progress(*columns) as progress:
        task = progress.add_task("trials", total=len(todo))
        for trial in todo:
            progress.update(task, description=words(trial))
            run(trial)
            progress.update(task, advance=1)
