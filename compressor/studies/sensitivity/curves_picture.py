"""Draw a sensitivity: a line per group, the most and the least sensitive ones in colour.

Below, where there are blocks, stands a bar per block from the uncut network's value to its own.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from compressor.choose.curves import Curve, Sensitivity

_MOST = ("#7f0000", "#d7301f", "#fc8d59")
_LEAST = ("#08306b", "#2171b5", "#6baed6")
_NAMED = 30
"""The most blocks that are all named under their bars."""
_OTHERS, _BASELINE = "#c9ced6", "#555555"


def draw_sensitivity(found: Sensitivity, path: Path) -> None:
    """Write the picture as an SVG file, which is the same for the same measurement."""
    with mpl.rc_context({"svg.hashsalt": "compressor"}):
        figure = Figure(figsize=(9, 7.4 if found.blocks else 4.2), layout="constrained")
        if found.blocks:
            above, below = figure.subplots(2, height_ratios=(4, 3))
            _draw_blocks(below, found)
        else:
            above = figure.subplots()
        _draw(above, found)
        figure.savefig(path, metadata={"Date": None})


def _draw(axes: Axes, found: Sensitivity) -> None:
    percent = _percent(found)
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
    axes.set_ylabel(_metric_in_words(found))
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


def _draw_blocks(axes: Axes, found: Sensitivity) -> None:
    """Draw a bar per block, in the order of execution; the worst are named, and the rest if few."""
    percent, places = _percent(found), range(len(found.blocks))
    changes = [percent * (block.value - found.baseline) for block in found.blocks]
    ranked = sorted(places, key=lambda i: -found.loss(found.blocks[i].value))
    colours = [_MOST[1] if i in ranked[:3] else _OTHERS for i in places]
    axes.bar(places, changes, bottom=percent * found.baseline, color=colours)
    axes.axhline(percent * found.baseline, color=_BASELINE, linewidth=0.8, linestyle=":")
    named = places if len(places) <= _NAMED else sorted(ranked[:3])
    names = [found.blocks[i].name.replace("$", r"\$") for i in named]
    axes.set_xticks(list(named), names, rotation=45, ha="right", fontsize="small")
    axes.set_ylabel(_metric_in_words(found))
    axes.set_title("without one whole block", loc="left", fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)


def _percent(found: Sensitivity) -> int:
    return 100 if found.metric == "top1" else 1


def _metric_in_words(found: Sensitivity) -> str:
    is_share = _percent(found) == 100
    return f"{found.metric}, %" if is_share else found.metric.replace("_", " ")


def mean_loss(found: Sensitivity, curve: Curve) -> float:
    """Return the mean loss of a group over the ratios that were tried."""
    return sum(found.loss(point.value) for point in curve.points) / len(curve.points)


def _line(found: Sensitivity, curve: Curve, percent: int) -> tuple[list[float], list[float]]:
    """Return the dropped shares in per cent and the values, from the uncut network on."""
    points = sorted({(curve.size - p.kept, p.value) for p in curve.points} | {(0, found.baseline)})
    return [100 * n / curve.size for n, _ in points], [percent * value for _, value in points]
