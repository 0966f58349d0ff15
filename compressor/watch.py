"""Define who follows a run: it is told of stages, progress within them and facts worth knowing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from compressor.unexpected import note_stage

Tick = Callable[[int, int, str], None]
"""`tick(done, total, note)`: progress within a stage."""


class Watch(Protocol):
    """What follows a run: the terminal of the command line, or nobody."""

    def stage(self, name: str) -> AbstractContextManager[Tick]:
        """Return a context that is entered when a stage begins and left when it ends."""

    def note(self, text: str) -> None:
        """Tell a fact that the user should know."""


class Silent:
    """A watch that shows nothing."""

    @contextmanager
    def stage(self, name: str) -> Iterator[Tick]:
        yield lambda done, total, note: None

    def note(self, text: str) -> None:
        pass


class Stopwatch:
    """A watch that passes stages and notes on to another, and remembers them.

    When a stage ends, the memory is given back that nothing needs any more: the next one needs
    other sizes.

    Attributes:
        seconds: Name of a stage -> how long it took.
        notes: The notes so far.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[Tick]:
        from compressor.memory_pages import trim_heap  # torch comes with it

        begin = time.perf_counter()
        with self._watch.stage(name) as tick:
            try:
                yield tick
            except Exception as error:
                note_stage(error, name)
                raise
            trim_heap()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin

    def note(self, text: str) -> None:
        self.notes.append(text)
        self._watch.note(text)
