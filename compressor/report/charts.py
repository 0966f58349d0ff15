"""Compute the points of the page's charts: inline SVGs, which take their colours from the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compressor.report.formatting import way

WIDTH, HEIGHT = 320.0, 140.0
_CURVES = (("training loss", "loss"), ("validation", "metric"), ("learning rate", "lr"))


@dataclass(frozen=True)
class Chart:
    """One panel of curves over epochs.

    Attributes:
        title: Its title.
        lines: Per training its name and points (x, y) in the panel's units.
        low, high: The values at the bottom and the top.
        last: The last epoch, at the right end.
    """

    title: str
    lines: tuple[tuple[str, tuple[tuple[float, float], ...]], ...]
    low: float
    high: float
    last: int


@dataclass(frozen=True)
class Box:
    """The times of one network's calls.

    Attributes:
        moment: "before" or "after".
        places: Positions of the 5th, 25th, 50th, 75th and 95th percentile, in the panel's units.
    """

    moment: str
    places: tuple[float, ...]


@dataclass(frozen=True)
class Distribution:
    """The times of both networks' calls in one way of running them.

    Attributes:
        title: Runtime and way.
        most_ms: The time at the right end, in milliseconds.
        boxes: One for each network.
    """

    title: str
    most_ms: float
    boxes: tuple[Box, ...]


def distributions(report: Mapping[str, Any]) -> list[Distribution]:
    """Return one distribution for each latency whose percentiles the report knows."""
    pairs = zip(report["before"]["latency"], report["after"]["latency"], strict=False)
    measured = (_distribution(*pair) for pair in pairs)
    return [distribution for distribution in measured if distribution is not None]


def _distribution(before: Mapping[str, Any], after: Mapping[str, Any]) -> Distribution | None:
    rows = {"before": before.get("quantiles_ms"), "after": after.get("quantiles_ms")}
    most = max((max(row) for row in rows.values() if row), default=0.0)
    if not all(rows.values()) or not most:
        return None
    boxes = (
        Box(moment, tuple(round(WIDTH * ms / most, 1) for ms in row or ()))
        for moment, row in rows.items()
    )
    return Distribution(f"{before['runtime']}, {way(before)}", most, tuple(boxes))


def charts(report: Mapping[str, Any]) -> list[Chart]:
    """Return the curves of a report's trainings, one training after the other by epoch."""
    trainings = [s for s in report["recovery"] if "training" in s]
    curves = (_chart(title, key, trainings) for title, key in _CURVES)
    return [chart for chart in curves if chart is not None]


def _chart(title: str, key: str, trainings: Sequence[Mapping[str, Any]]) -> Chart | None:
    values: list[tuple[str, list[tuple[int, float]]]] = []
    before = 0
    for step in trainings:
        epochs = step["training"]["epochs"]
        known = [(before + e["epoch"], e[key]) for e in epochs if e[key] is not None]
        values.append((step["step"], known))
        before += len(epochs)
    heights = [y for _, line in values for _, y in line]
    if not heights:
        return None
    low, high = min(heights), max(heights)

    def place(point: tuple[int, float]) -> tuple[float, float]:
        right = (point[0] - 1) / max(before - 1, 1)
        up = (point[1] - low) / (high - low) if high > low else 1.0
        return round(WIDTH * right, 1), round(HEIGHT * (1 - up), 1)

    lines = tuple((name, tuple(map(place, line))) for name, line in values)
    return Chart(title, lines, low, high, before)
