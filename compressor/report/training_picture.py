"""Draw a run's trainings: loss and validation metric by epoch, one training after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_COLOURS = ("#2171b5", "#d7301f", "#41ab5d", "#807dba", "#fc8d59")


def _trainings_of(recovery: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the names and epochs of the trainings in a report's recovery steps."""
    return [(step["step"], step["training"]["epochs"]) for step in recovery if "training" in step]


def draw_trainings(recovery: Sequence[Mapping[str, Any]], metric: str, path: Path) -> None:
    """Write the trainings' curves as an SVG file, which is the same for the same numbers."""
    trainings = _trainings_of(recovery)
    judged = any(epoch["metric"] is not None for _, epochs in trainings for epoch in epochs)
    with mpl.rc_context({"svg.hashsalt": "compressor"}):
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        panels = figure.subplots(1, 1 + judged, squeeze=False)[0]
        _draw(panels[0], trainings, "loss", "training loss", 1)
        if judged:
            percent = 100 if metric == "top1" else 1
            words = f"{metric}, %" if percent == 100 else metric
            _draw(panels[1], trainings, "metric", f"validation: {words}", percent)
        panels[0].legend(frameon=False, fontsize="small")
        figure.savefig(path, metadata={"Date": None})


def _draw(
    axes: Axes,
    trainings: Sequence[tuple[str, Sequence[Mapping[str, Any]]]],
    name: str,
    words: str,
    factor: float,
) -> None:
    before = 0
    for number, (step, epochs) in enumerate(trainings):
        known = [(before + e["epoch"], factor * e[name]) for e in epochs if e[name] is not None]
        xs, ys = [x for x, _ in known], [y for _, y in known]
        colour = _COLOURS[number % len(_COLOURS)]
        axes.plot(xs, ys, "o-", markersize=3, linewidth=1, color=colour, label=step)
        if number:
            axes.axvline(before + 0.5, color="#c9ced6", linewidth=0.8)
        before += len(epochs)
    axes.set_xlabel("epoch")
    axes.set_title(words, loc="left", fontsize="small", parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
