"""Tell how far a sweep is."""

from __future__ import annotations

import time

from compressor.studies.sweep.carrying_out import Outcome, Task
from compressor.watch import Stopwatch, Tick


class Progress:
    """Counts the trials that are done and failed, and estimates the time that the others take."""

    def __init__(self, total: int, jobs: int, tick: Tick) -> None:
        self.total, self.jobs, self.tick = total, min(jobs, total), tick
        self.begin = time.perf_counter()
        self.done = self.failed = 0

    def at(self, task: Task, text: str) -> None:
        """Show what a trial is doing."""
        self.tick(self.done, self.total, f"{self._time_left()}{task.trial.words}: {text}")

    def count(self, task: Task, outcome: Outcome, stopwatch: Stopwatch) -> None:
        """Count a trial that has ended, well or not; a failure is noted."""
        self.done += 1
        if outcome.failure:
            self.failed += 1
            stopwatch.note(f"failed: {task.trial.words}: {outcome.failure}")
        failed = f", {self.failed} failed" if self.failed else ""
        self.tick(self.done, self.total, f"{self._time_left()}{self.done} of {self.total}{failed}")

    def _time_left(self) -> str:
        if not self.done or self.done == self.total:
            return ""
        seconds = (time.perf_counter() - self.begin) / self.done * (self.total - self.done)
        return f"about {seconds / 60:.0f} min left, " if seconds > 90 else f"{seconds:.0f} s left, "
