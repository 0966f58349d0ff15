"""What is measured, in the order of worth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module

from tools.gpu_rows.records import Row
from tools.gpu_rows.scale import Scale


@dataclass(frozen=True)
class Part:
    """Attributes:
    seconds: At most, of one call; None: all that are left.
    module: Whose `rows` gives the rows, the most valuable first.
    """

    seconds: float | None
    module: str

    @property
    def rows(self) -> Callable[[Scale], Iterable[Row]]:
        return import_module(f"tools.gpu_rows.parts.{self.module}").rows


NO_GPU = 3
"""What a part's process ends with where there is none."""

PARTS: Mapping[str, Part] = {
    "tests": Part(60, "testing"),
    "latency": Part(90, "latency"),
    "training": Part(None, "training"),
    "language": Part(None, "language"),
}
