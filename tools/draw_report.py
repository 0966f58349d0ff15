"""Draw a report.json: what became smaller, and what each step did to the accuracy.

python -m tools.draw_report exported/resnet56/report.json docs/results/resnet56.svg
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import matplotlib as mpl
from cyclopts import App
from matplotlib.axes import Axes
from matplotlib.figure import Figure

mpl.rcParams["svg.hashsalt"] = "compressor"  # the same file for the same report
BEFORE, AFTER = "#9aa5b1", "#2f6fde"

app = App(help=__doc__)


@app.default
def draw(report: Path, picture: Path) -> None:
    """Write `picture` (.svg or .png) from `report`."""
    found = json.loads(report.read_text())
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    sizes, steps = figure.subplots(1, 2, width_ratios=[1, 1.2])
    _draw_sizes(sizes, found["before"], found["after"])
    _draw_steps(steps, found["recovery"])
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, metadata={"Date": None} if picture.suffix == ".svg" else None)


def _draw_sizes(axes: Axes, before: dict[str, Any], after: dict[str, Any]) -> None:
    """Each quantity after compression as a share of the original's."""
    rows = {
        "MACs": (before["macs"], after["macs"]),
        "parameters": (before["params"], after["params"]),
        "ONNX file": (before["size_bytes"], after["size_bytes"]),
        "latency, 1 thread": tuple(s["latency"][0]["p50_ms"] for s in (before, after)),
    }
    shares = [100 * new / old for old, new in rows.values()]
    axes.barh(list(rows), [100] * len(rows), color=BEFORE, height=0.6, label="before")
    bars = axes.barh(list(rows), shares, color=AFTER, height=0.6, label="after")
    axes.bar_label(bars, fmt="%.0f %%", label_type="center", color="white")
    axes.invert_yaxis()
    axes.set_xlabel("share of the original, %")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_steps(axes: Axes, recovery: list[dict[str, Any]]) -> None:
    """The metric after each step, in order."""
    name = next(iter(recovery[0]["metrics"]))
    values = [100 * step["metrics"][name] for step in recovery]
    axes.plot(range(len(values)), values, "o-", color=AFTER)
    for at, value in enumerate(values):
        axes.annotate(f"{value:.1f}", (at, value), (0, 6), textcoords="offset points", ha="center")
    axes.set_xticks(range(len(values)), [_wrapped(step["step"]) for step in recovery])
    axes.set_ylabel(f"{name}, %")
    axes.margins(x=0.12, y=0.2)
    axes.spines[["top", "right"]].set_visible(False)


def _wrapped(text: str, width: int = 16) -> str:
    return "\n".join(textwrap.wrap(text, width))


if __name__ == "__main__":
    app()
