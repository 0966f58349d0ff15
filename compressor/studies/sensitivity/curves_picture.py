"""Draw a sensitivity: a line per group, the most and the least sensitive ones in colour."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from compressor.choose.curves import Curve, Sensitivity

_MOST = ("#7f0000", "#d7301f", "#fc8d59")
_LEAST = ("#08306b", "#2171b5", "#6baed6")
_OTHERS, _BASELINE = "#c9ced6", "#555555"


def draw_sensitivity(found: Sensitivity, path: Path) -> None:
    """Write the picture as an SVG file, which is the same for the same measurement."""
    with mpl.rc_context({"svg.hashsalt": "compressor"}):
        figure = Figure(figsize=(9, 4.2), layout="constrained")
        _draw(figure.subplots(), found)
        figure.savefig(path, metadata={"Date": None})


def _draw(axes: Axes, found: Sensitivity) -> None:
    percent = 100 if found.metric == "top1" else 1
    ordered = sorted((c for c in found.groups if c.points), key=lambda c: -mean_loss(found, c))
    count = min(3, (len(ordered) + 1) // 2)
    most, least = ordered[:count], ordered[count:][-3:]
    others = ordered[count : len(ordered) - len(least)]
    for curve in others:
        axes.plot(*_line(found, curve, percent), color=_OTHERS, linewidth=0.8)
    coloured = [*zip(most, _MOST, strict=False), *zip(least, _LEAST[::-1], strict=False)]
    for curve, colour in coloured:
        style, label = "o-" if curve in most else "s-", f" {curve.name}"  # "_x" would be hidden
        axes.plot(*_line(found, curve, percent), style, markersize=3, color=colour, label=label)
    axes.axhline(percent * found.baseline, color=_BASELINE, linewidth=0.8, linestyle=":")
    axes.set_xlabel("channels dropped from the one group, %")
    axes.set_ylabel(f"{found.metric}, %" if percent == 100 else found.metric.replace("_", " "))
    title = f"{found.model['name']}: {found.measured_on}"
    axes.set_title(title, loc="left", fontsize="small", parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    if ordered:
        axes.legend(
            title=f"most sensitive first ({len(others)} more in grey)" if others else None,
            loc="upper left",
            bbox_to_anchor=(1.01, 1),
            frameon=False,
            fontsize="small",
        )


def mean_loss(found: Sensitivity, curve: Curve) -> float:
    """Return the mean loss of a group over the ratios that were tried."""
    return sum(found.loss(point.value) for point in curve.points) / len(curve.points)


def _line(found: Sensitivity, curve: Curve, percent: int) -> tuple[list[float], list[float]]:
    """Return the dropped shares in per cent and the values, from the uncut network on."""
    points = sorted({(curve.size - p.kept, p.value) for p in curve.points} | {(0, found.baseline)})
    return [100 * n / curve.size for n, _ in points], [percent * value for _, value in points]
