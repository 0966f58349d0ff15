"""Keep measured times by layer and widths: a record, and the file that it lives in."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from compressor.errors import CompressorError
from compressor.files.whole_file import write_whole
from compressor.latency.layers import Layer
from compressor.latency.measured_steps import Step, step_names
from compressor.latency.noise import LIMIT
from compressor.latency.points import Grid, Point, Steps, Surface, grid_of

SCHEMA = 1


@dataclass(frozen=True)
class LatencyTable:
    """What was measured of layers on one machine; its methods return other tables, and change none.

    Attributes:
        machine: What the times hold for (see `machine.machine_of`).
        steps: Per kind of layer and size the measured step.
        times: Per layer's signature the milliseconds at each point of its grid.
        noise: Per layer's signature by which share two looks at it differ (`noise.noise_of`).
        unsettled: Names of steps ("linear: out") that were different each time they were measured.
    """

    machine: Mapping[str, Any]
    steps: Mapping[str, Steps] = field(default_factory=dict)
    times: Mapping[str, Mapping[Point, float]] = field(default_factory=dict)
    noise: Mapping[str, float] = field(default_factory=dict)
    unsettled: frozenset[str] = frozenset()

    @property
    def noisy(self) -> list[str]:
        """Return the signatures of the layers whose times do not agree with one another."""
        return [signature for signature, noise in self.noise.items() if noise > LIMIT]

    def steady(self) -> LatencyTable:
        """Return the table without what a busy machine has blurred, which is not to be kept."""
        steps = {
            kind: {n: step for n, step in by_size.items() if f"{kind}: {n}" not in self.unsettled}
            for kind, by_size in self.steps.items()
        }
        noisy = set(self.noisy)
        return LatencyTable(
            self.machine,
            {kind: by_size for kind, by_size in steps.items() if by_size},
            {name: times for name, times in self.times.items() if name not in noisy},
            {name: noise for name, noise in self.noise.items() if name not in noisy},
        )

    def step(self, kind: str, name: str) -> Step:
        """Return the step of one size of a kind; 1 where none was looked for."""
        return self.steps.get(kind, {}).get(name, Step())

    def lacks_steps(self, kind: str) -> list[str]:
        """Return the names of the sizes of a kind whose step was not measured yet."""
        return [name for name in step_names(kind) if name not in self.steps.get(kind, {})]

    def grid(self, layer: Layer) -> Grid:
        """Return where the layer is measured, with the steps that are known."""
        return grid_of(layer, self.steps.get(layer.kind, {}))

    def lacks(self, layer: Layer) -> list[Point]:
        """Return the points of the layer's grid that were not measured yet."""
        measured = self.times.get(layer.signature, {})
        return [point for point in self.grid(layer).points if point not in measured]

    def surface(self, layer: Layer) -> Surface:
        """Return the layer's time at any widths; none of its points may be lacking."""
        return Surface(self.grid(layer), self.times[layer.signature])

    def with_step(
        self, kind: str, name: str, step: Step, *, is_settled: bool = True
    ) -> LatencyTable:
        """Return the table with one step more."""
        unsettled = self.unsettled if is_settled else self.unsettled | {f"{kind}: {name}"}
        steps = {**self.steps, kind: {**self.steps.get(kind, {}), name: step}}
        return replace(self, steps=steps, unsettled=unsettled)

    def with_times(
        self, signature: str, times: Mapping[Point, float], noise: float = 0.0
    ) -> LatencyTable:
        """Return the table with more points of a layer; the shorter of two times of a point stays.

        Args:
            signature: The layer's.
            times: Milliseconds by point.
            noise: By which share the two shortest looks at these points differ.
        """
        known = self.times.get(signature, {})
        least = {point: min(ms, known.get(point, ms)) for point, ms in times.items()}
        return replace(
            self,
            times={**self.times, signature: {**known, **least}},
            noise={**self.noise, signature: noise},
        )

    def covers(self, layer: Layer) -> bool:
        """Return whether all measurements of a layer are there."""
        return not (self.lacks_steps(layer.kind) or self.lacks(layer))

    def check_covers(self, layers: Iterable[Layer], where: str = "") -> None:
        """Check that all measurements of the layers are there.

        Raises:
            CompressorError: Names the layers of which measurements are missing.
        """
        unmeasured = dict.fromkeys(
            f"{layer.name}: {layer.signature}" for layer in layers if not self.covers(layer)
        )
        if unmeasured:
            listed = list(unmeasured)
            more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
            raise CompressorError(
                f"the latency table has no times of {'; '.join(listed[:3])}{more}",
                where=where,
                consequence="the network's latency cannot be predicted from it",
                next_step="measure the table for this very network, batch and number of threads",
            )

    # -- the file ------------------------------------------------------------------------------

    def to_json(self) -> str:
        """Return the table as a text that is the same for the same table, byte for byte."""
        steps = {
            kind: {name: [step.every, step.grain] for name, step in sorted(by_size.items())}
            for kind, by_size in sorted(self.steps.items())
        }
        times = {
            signature: {" ".join(map(str, point)): ms for point, ms in sorted(points.items())}
            for signature, points in sorted(self.times.items())
        }
        raw = {"schema": SCHEMA, "machine": dict(self.machine), "steps": steps, "times": times}
        raw["noise"] = dict(sorted(self.noise.items()))
        return json.dumps(raw, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> LatencyTable:
        """Read `to_json`'s text.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: The text is no such table.
        """
        raw = json.loads(text)
        if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
            raise ValueError(f"it is no latency table of schema {SCHEMA}")
        steps = {
            kind: {name: Step(*map(_positive, pair)) for name, pair in by_size.items()}
            for kind, by_size in raw["steps"].items()
        }
        times = {
            signature: {tuple(map(int, at.split())): _time(ms) for at, ms in points.items()}
            for signature, points in raw["times"].items()
        }
        noise = {name: _time(share) for name, share in raw.get("noise", {}).items()}
        return cls(dict(raw["machine"]), steps, times, noise)


def _positive(value: Any) -> int:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{value!r} is no step")
    return value


def _time(value: Any) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{value!r} is no time")
    return float(value)


def read_table(path: Path) -> LatencyTable:
    """Read a table from its file.

    Raises:
        CompressorError: There is no such file, or it is no latency table.
    """
    try:
        return LatencyTable.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise CompressorError(
            f"the latency table cannot be read: {reason}",
            where=str(path),
            consequence="no latency was predicted",
            next_step="give a file that an earlier run wrote, or delete it to measure anew",
        ) from error


def write_table(table: LatencyTable, path: Path) -> None:
    """Write a table to its file; an earlier one of that name stays whole if anything fails.

    Raises:
        CompressorError: The file or its folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CompressorError(
            f"the latency table's folder cannot be made: {error.strerror or error}",
            where=str(path.parent),
            consequence="nothing that is measured would be kept",
            next_step="set XDG_CACHE_HOME to a folder that you may write to",
        ) from error
    with write_whole(path) as temporary:
        temporary.write_text(table.to_json(), encoding="utf-8")
