"""Draw curves: a metric against a cost, with the dense original beside them."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from compressor.studies.sweep.curves_of_trials import MethodCurve
from compressor.studies.sweep.trials import DENSE, UNSTRUCTURED

COLOURS = ("#2a66c8", "#c8372a", "#2c8a4b", "#7a5bb5", "#b86a12", "#0f8a94")
QUIET = "#5b6675"
INK = "#1c2430"
_MARKS = "osD^vP"

COST_WORDS = {
    "compression_ratio": "compression ratio (parameters), ×",
    "theoretical_speedup": "theoretical speed-up (multiply-adds), ×",
    "measured_speedup": "measured speed-up (latency), ×",
}
METRIC_WORDS = {"top1": "top-1, %", "top5": "top-5, %"}


@dataclass(frozen=True)
class Picture:
    """One picture: a metric (or its difference to the dense original's) against a cost.

    Attributes:
        metric: Name of the metric.
        cost: Name of the cost.
        is_difference: Whether the difference is drawn.
        dense: The dense original's metric.
    """

    metric: str
    cost: str
    is_difference: bool
    dense: float

    @property
    def file(self) -> str:
        """Return the picture's part of a file name."""
        ending = "-difference" if self.is_difference else ""
        return f"{_plain(self.metric)}-{self.cost.split('_')[0]}{ending}"

    @property
    def percent(self) -> float:
        return 100 if self.metric in METRIC_WORDS else 1

    @property
    def words(self) -> str:
        """Return the label of the vertical axis."""
        words = METRIC_WORDS.get(self.metric, self.metric)
        if not self.is_difference:
            return words
        points = words.replace(", %", ", points") if self.percent == 100 else words
        return f"{points}, difference to dense"


@dataclass(frozen=True)
class Style:
    """How one method looks in all pictures."""

    colour: str
    mark: str
    line: str
    is_hollow: bool


def styles_of(curves: Sequence[MethodCurve]) -> dict[str, Style]:
    """Return the style of each method: controls are dashed, the reference is grey and dotted."""
    styles: dict[str, Style] = {}
    for curve in curves:
        if curve.method in styles:
            continue
        if curve.kind == UNSTRUCTURED:
            styles[curve.method] = Style(QUIET, "x", ":", True)
            continue
        number = sum(not style.is_hollow for style in styles.values())
        colour, mark = COLOURS[number % 6], _MARKS[(number // 6) % 6]
        styles[curve.method] = Style(colour, mark, "--" if curve.control else "-", False)
    return styles


def draw(
    curves: Sequence[MethodCurve], picture: Picture, styles: dict[str, Style], *, legend: bool
) -> str:
    """Draw curves and return the text of an SVG, which is the same for the same curves."""
    with mpl.rc_context({"svg.hashsalt": picture.file, "svg.fonttype": "none"}):
        figure = Figure(figsize=(4.6, 5.0) if legend else (4.0, 3.0), layout="constrained")
        figure.patch.set_alpha(0.0 if not legend else 1.0)
        axes = figure.subplots()
        _draw(axes, curves, picture, styles)
        if legend:
            handles, labels = axes.get_legend_handles_labels()
            figure.legend(
                handles, labels, loc="outside lower left", frameon=False, fontsize="small"
            )
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _draw(
    axes: Axes, curves: Sequence[MethodCurve], picture: Picture, styles: dict[str, Style]
) -> None:
    dense = 0.0 if picture.is_difference else picture.percent * picture.dense
    axes.axhline(dense, color=QUIET, linewidth=0.8, linestyle=(0, (1, 2)))
    axes.plot([1], [dense], "*", color=INK, markersize=9, label="dense original", zorder=3)
    reached = [1.0]
    for curve in curves:
        reached += _line(axes, curve, picture, styles[curve.method])
    axes.set_xscale("log", base=2)
    low, high = min(reached), max(reached)
    axes.set_xlim(low / 1.15, high * 1.15)
    ticks = [2.0**n for n in range(-3, 12) if low / 1.15 <= 2.0**n <= high * 1.15]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.set_xlabel(COST_WORDS[picture.cost])
    axes.set_ylabel(picture.words, parse_math=False)
    axes.patch.set_alpha(0.0)
    axes.grid(visible=True, linewidth=0.4, color="#dde2e9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _line(axes: Axes, curve: MethodCurve, picture: Picture, style: Style) -> list[float]:
    name = f"{picture.metric}_difference" if picture.is_difference else picture.metric
    points = [p.numbers for p in curve.points if {name, picture.cost} <= p.numbers.keys()]
    xs = [point[picture.cost].mean for point in points]
    ys = [picture.percent * point[name].mean for point in points]
    bars = [picture.percent * (point[name].deviation or 0.0) for point in points]
    if not points:
        return []
    look: dict[str, Any] = {"color": style.colour, "linestyle": style.line, "linewidth": 1.3}
    if style.is_hollow:
        look["alpha"] = 0.9
    axes.errorbar(
        xs,
        ys,
        yerr=bars if any(bars) else None,
        marker=style.mark,
        markersize=4.5,
        capsize=2.5,
        elinewidth=0.9,
        label=f" {curve.method}" + (" (control)" if curve.control else ""),
        **look,
    )
    return xs


_VARIABLES = {
    **{colour: f"var(--c{number}, {colour})" for number, colour in enumerate(COLOURS)},
    QUIET: f"var(--quiet, {QUIET})",
    INK: f"var(--ink, {INK})",
    "#dde2e9": "var(--line, #dde2e9)",
    "#000000": "var(--ink, #000)",
}


def for_a_page(svg: str) -> str:
    """Change an SVG so that it can stand in a page and takes its colours from it."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r' id="[a-z_A-Z0-9]+_\d+"', "", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(f": {colour}", f": {variable}")
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    return re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)


def _plain(text: str) -> str:
    return re.sub(r"[^\w]+", "-", text).strip("-")


def settings_of(curves: Sequence[MethodCurve]) -> dict[str, list[MethodCurve]]:
    """Group the curves that share a picture: those of one schedule and one recovery."""
    settings: dict[str, list[MethodCurve]] = {}
    for curve in curves:
        if curve.kind != DENSE:
            settings.setdefault(curve.setting, []).append(curve)
    return settings


def file_of(setting: str, picture: Picture) -> str:
    """Return a picture's file name within the folder of curves."""
    return f"{_plain(setting)}_{picture.file}.svg"
