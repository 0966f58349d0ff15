"""Draw results as a picture: quality against MACs, time and size, each with its original."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from compressor.errors import CompressorError
from compressor.studies.compare.result_entries import FILE, MACS, Entry

_COLOURS = ("#2171b5", "#d7301f", "#41ab5d", "#807dba", "#fc8d59", "#525252")
_MARKS = "osD^vP"
_UNITS = {MACS: "", FILE: "B"}


def check_drawable(entries: Sequence[Entry]) -> None:
    """Check that the results share one metric, so that they can be drawn in one picture.

    Raises:
        CompressorError: No result has a metric, or they have different ones.
    """
    metrics = sorted({entry.metric for entry in entries if entry.metric is not None})
    if len(metrics) == 1:
        return
    raise CompressorError(
        f"the results have different metrics: {', '.join(metrics)}"
        if metrics
        else "no result has a metric to draw",
        where="--out",
        consequence="no picture was drawn",
        next_step="compare results that were evaluated alike, or leave --out out",
    )


def draw_comparison(entries: Sequence[Entry], path: Path) -> None:
    """Write the picture as an SVG file; the same results give the same bytes.

    Args:
        entries: The results; those without a metric are left out.
        path: The file.
    """
    drawn = [entry for entry in entries if entry.metric is not None]
    with mpl.rc_context({"svg.hashsalt": "compressor"}):
        figure = Figure(figsize=(11, 3.6), layout="constrained")
        panels = figure.subplots(1, 3, sharey=True)
        for axes, words in zip(panels, (MACS, "latency, ms", FILE), strict=True):
            _draw(axes, drawn, words)
        metric = drawn[0].metric or ""
        words = "top1, %" if metric == "top1" else metric
        panels[0].set_ylabel(words, parse_math=False)
        handles, labels = panels[0].get_legend_handles_labels()
        legend = figure.legend(
            handles, labels, loc="outside lower left", frameon=False, fontsize="small"
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _draw(axes: Axes, entries: Sequence[Entry], words: str) -> None:
    for number, entry in enumerate(entries):
        name = entry.latency if words == "latency, ms" else words
        if name is None or name not in entry.pairs or entry.metric is None:
            continue
        percent = 100 if entry.metric == "top1" else 1
        xs, ys = entry.pairs[name], [percent * value for value in entry.pairs[entry.metric]]
        colour, mark = _COLOURS[number % 6], _MARKS[number // 6 % 6]
        axes.plot(xs, ys, "-", linewidth=0.6, color=colour, alpha=0.5)
        axes.plot(xs[:1], ys[:1], mark, markersize=6, color=colour, fillstyle="none")
        axes.plot(xs[1:], ys[1:], mark, markersize=6, color=colour, label=f" {entry.folder}")
    axes.set_title(f"{words} (hollow: the original)", loc="left", fontsize="small")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    if words in _UNITS:
        axes.xaxis.set_major_formatter(EngFormatter(_UNITS[words]))
    axes.spines[["top", "right"]].set_visible(False)
