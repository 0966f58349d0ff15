"""Draw a network as a picture: its layers from top to bottom, each with the groups of channels that
it reads and makes, in the groups' colours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Patch, Rectangle
from torch.fx import Node

from compressor.graph.network import Network
from compressor.graph.programs.lifting import stored_names
from compressor.graph.programs.nodes import operator_of
from compressor.records import Group, Trace
from compressor.studies.inspect.inspecting import macs_share

_KEPT, _LINE, _TEXT = "#d9dde3", "#8a93a0", "#1c2530"
_ROW, _BAND, _WIDTH = 0.3, 0.5, 6.0
_LISTED = 24
"""The most groups in the legend: those with the largest share of the MACs."""


@dataclass(frozen=True)
class LayerRow:
    """A layer in the picture, or a place where branches meet.

    Attributes:
        name: The layer's path; "" where branches meet.
        kind: The operator's name.
        sources: The numbers of the rows that it works on.
        reads: The names of the groups of channels that it reads.
        makes: The names of the groups of channels that it makes.
    """

    name: str
    kind: str
    sources: tuple[int, ...]
    reads: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()


def rows_of(trace: Trace, network: Network) -> list[LayerRow]:
    """Return the picture's rows, in the program's order.

    Operators without parameters have a row only where they join several.
    """
    stored = stored_names(trace.program)
    rows: list[LayerRow] = []
    behind: dict[str, tuple[int, ...]] = {}
    reads, makes = _groups_by_tensor(network, contracted=True), _groups_by_tensor(network)
    for node in trace.program.graph.nodes:
        if node.op != "call_function":
            continue
        inputs = node.all_input_nodes
        sources = tuple(sorted({row for i in inputs for row in behind.get(i.name, ())}))
        tensors = [stored[i.name] for i in inputs if i.name in stored]
        parameters = [network.aliases.get(t, t) for t in tensors if t in network.tensors]
        if not parameters and len(sources) < 2:
            behind[node.name] = sources
            continue
        name = parameters[0].rpartition(".")[0] or parameters[0] if parameters else ""
        if name and sources and rows[sources[-1]].name == name and len(sources) == 1:
            behind[node.name] = sources  # one more operator of the same layer
            continue
        read, made = _names_of(parameters, reads), _names_of(parameters, makes)
        rows.append(LayerRow(name, _kind(node), sources, read, made))
        behind[node.name] = (len(rows) - 1,)
    return rows


def _kind(node: Node) -> str:
    return operator_of(node).partition(".")[0]


def _groups_by_tensor(network: Network, *, contracted: bool = False) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for group in network.groups:
        for member in group.members:
            if member.contracted == contracted:
                names.setdefault(member.tensor, []).append(group.name)
    return names


def _names_of(tensors: Iterable[str], groups: Mapping[str, list[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for tensor in tensors for name in groups.get(tensor, ())))


def draw_network(trace: Trace, network: Network, path: Path) -> None:
    """Write the picture as an SVG file; the same network gives the same bytes."""
    rows = rows_of(trace, network)
    colours = _colours(network)
    with mpl.rc_context({"svg.hashsalt": "compressor"}):
        figure = Figure(figsize=(11, max(3.0, _ROW * len(rows) + 0.8)), layout="constrained")
        axes = figure.subplots()
        for number, row in enumerate(rows):
            _draw_row(axes, number, row, colours)
            _draw_edges(axes, number, row.sources)
        _legend(axes, network, colours)
        axes.set_xlim(-0.3, _WIDTH + 1.2)
        axes.set_ylim(len(rows) + 0.2, -1.2)
        axes.set_axis_off()
        figure.savefig(path, format="svg", metadata={"Date": None})


def _colours(network: Network) -> dict[str, str]:
    """Return a colour per group; neighbours in the list differ."""
    palette = [mpl.colors.to_hex(colour) for colour in mpl.colormaps["tab20"].colors]  # type: ignore[attr-defined]
    return {group.name: palette[i % len(palette)] for i, group in enumerate(network.groups)}


def _draw_row(axes: Axes, number: int, row: LayerRow, colours: Mapping[str, str]) -> None:
    if not row.name:
        axes.text(_WIDTH / 2, number, row.kind, ha="center", va="center", color=_LINE, fontsize=7)
        return
    _bands(axes, 0.0, number, [colours[name] for name in row.reads])
    _bands(axes, _WIDTH - _BAND, number, [colours[name] for name in row.makes])
    axes.add_patch(
        Rectangle((0, number - 0.36), _WIDTH, 0.72, fill=False, edgecolor=_LINE, linewidth=0.6)
    )
    words = f"{row.name}  ({row.kind})"
    axes.text(_BAND + 0.15, number, words, va="center", color=_TEXT, fontsize=7, parse_math=False)


def _bands(axes: Axes, left: float, number: int, colours: Sequence[str]) -> None:
    shown = list(colours) or [_KEPT]
    width = _BAND / len(shown)
    for i, colour in enumerate(shown):
        corner = (left + i * width, number - 0.36)
        axes.add_patch(Rectangle(corner, width, 0.72, color=colour, linewidth=0))


def _draw_edges(axes: Axes, number: int, sources: Sequence[int]) -> None:
    for source in sources:
        if source == number - 1:
            axes.plot([_WIDTH / 2] * 2, [source + 0.36, number - 0.36], color=_LINE, linewidth=0.8)
        else:
            bend = f"arc3,rad={-min(0.6, 1.6 / (number - source))}"
            ends = ((_WIDTH, source), (_WIDTH, number))
            axes.add_patch(
                FancyArrowPatch(*ends, connectionstyle=bend, arrowstyle="-", color=_LINE, lw=0.8)
            )


def _legend(axes: Axes, network: Network, colours: Mapping[str, str]) -> None:
    shares = {group.name: macs_share(network, group) for group in network.groups}
    largest = sorted(network.groups, key=lambda group: -shares[group.name])
    handles = [Patch(color=colours[g.name], label=_words(g, shares[g.name])) for g in largest]
    more = f", {len(largest) - _LISTED} more not listed" if len(largest) > _LISTED else ""
    axes.legend(
        handles=[*handles[:_LISTED], Patch(color=_KEPT, label=f" protected or of no group{more}")],
        title="left: what a layer reads, right: what it makes",
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        fontsize=7,
        title_fontsize=7,
        alignment="left",
    )


def _words(group: Group, share: float) -> str:
    """Describe a group in the legend."""
    # matplotlib hides labels that begin with an underscore: the blank in front keeps them.
    return f" {group.name}: {group.size} {group.role}, {share:.1%} of the MACs"
