"""Tell how far a sweep is."""

from __future__ import annotations

from compressor.studies.sweep.carrying_out import Outcome, Task
from compressor.watch import Stopwatch, Tick


class Progress:
    """Counts the trials that are done and failed, and shows what each is doing."""

    def __init__(self, total: int, tick: Tick) -> None:
        self.total, self.tick = total, tick
        self.done = self.failed = 0

    def at(self, task: Task, text: str) -> None:
        """Show what a trial is doing."""
        self.tick(self.done, self.total, f"{task.trial.words}: {text}")

    def count(self, task: Task, outcome: Outcome, stopwatch: Stopwatch) -> None:
        """Count a trial that has ended, well or not; a failure is noted."""
        self.done += 1
        if outcome.failure:
            self.failed += 1
            stopwatch.note(f"failed: {task.trial.words}: {outcome.failure}")
        failed = f", {self.failed} failed" if self.failed else ""
        self.tick(self.done, self.total, f"{self.done} of {self.total}{failed}")
