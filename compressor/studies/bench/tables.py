"""Show what a benchmark found, as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from compressor.runtimes.ways import Way
from compressor.studies.bench.slow_layers import FixedCost, Slow

_HEADERS = ("", "ms: p50", "p90", "p99", "faster", "samples/s", "GFLOP/s", "MB")
LISTED = 8
"""Layers that are named per reason; the others share one row."""

SAID = 0.05
"""A fixed cost below this share of a network's time is not worth a line."""


def networks_table(networks: Sequence[Mapping[str, Any]]) -> Table:
    """Make the table of the networks' multiply-adds, parameters and file sizes."""
    table = Table(title="networks", title_justify="left")
    for header in ("", "MACs", "parameters", "file"):
        table.add_column(header, justify="right" if header else "left", overflow="fold")
    for network in networks:
        cells = (network["macs"] / 1e6, network["params"] / 1e6, network["size_bytes"] / 1e6)
        macs, params, size = (f"{value:.4g}" for value in cells)
        table.add_row(Text(network["name"]), f"{macs} M", f"{params} M", f"{size} MB")
    return table


def way_table(way: Way, records: Iterable[Mapping[str, Any]]) -> Table:
    """Make the table of one way: a row per network; the first one's ratio is the noise."""
    table = Table(title=way.words, title_justify="left")
    for header in _HEADERS:
        table.add_column(header, justify="right" if header else "left", overflow="fold")
    for number, record in enumerate(records):
        ms, faster = record["ms"], record["faster"]
        interval = f"{faster['low']:.2f} to {faster['high']:.2f}"
        ratio = f"{faster['value']:.2f}x ({interval})" if number else f"(noise {interval})"
        table.add_row(
            Text(record["name"]),
            *(f"{ms[name]:.3g}" for name in ("p50", "p90", "p99")),
            Text(ratio, style="bold" if number else ""),
            f"{record['samples_per_s']:.4g}",
            f"{record['gflop_per_s']:.3g}" if record["gflop_per_s"] else "",
            f"{record['peak_mb']:.0f}" if record["peak_mb"] is not None else "",
        )
    return table


def slow_tables(name: str, slow: Sequence[Slow]) -> Iterator[Table]:
    """Yield one table per reason of layers whose time did not follow their multiply-adds.

    A table's title has the reason and what to try.
    """
    for why in dict.fromkeys(layer.why for layer in slow):
        some = [layer for layer in slow if layer.why == why]
        title = f"{name}, layers slower than their MACs: {why} ({some[0].next_step})"
        yield _slow_table(title, some)


def _slow_table(title: str, slow: Sequence[Slow]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("layer", overflow="fold")
    for header in ("width", "ms", "MACs\nleft", "time\nleft"):
        table.add_column(header, justify="right")
    for layer in slow[:LISTED]:
        ms = f"{layer.before_ms:.3g} → {layer.after_ms:.3g}"
        shares = (f"{layer.macs_left:.0%}", f"{layer.time_left:.0%}")
        table.add_row(Text(layer.layer), str(layer.width or ""), ms, *shares)
    if len(slow) > LISTED:
        before, after = (
            sum(getattr(layer, name) for layer in slow[LISTED:])
            for name in ("before_ms", "after_ms")
        )
        cells = (f"{len(slow) - LISTED} more", "", f"{before:.3g} → {after:.3g}", "")
        table.add_row(*cells, f"{after / before:.0%}", style="dim")
    return table


def fixed_words(name: str, fixed: FixedCost) -> str:
    """Say how much of the network's time narrower layers do not save; "" where it is hardly any."""
    if fixed.share < SAID:
        return ""
    layers = "layer that was" if fixed.layers == 1 else f"{fixed.layers} layers that were"
    return (
        f"{name}: about {fixed.share:.0%} of its time ({fixed.ms:.3g} of {fixed.total_ms:.3g} ms) "
        f"is a fixed cost, which did not fall with the MACs of the {layers} cut. "
        "Narrower layers keep it: only fewer layers save it."
    )


def layers_table(names: Sequence[str], layers: Sequence[Sequence[Mapping[str, Any]]]) -> Table:
    """Make the table of the milliseconds that each operator takes in every network.

    Operators that take no time are left out. What the runtime adds itself (changes of layout and of
    type) is one row at the end.
    """
    table = Table(title="layers, ONNX Runtime, 1 thread, batch 1", title_justify="left")
    for header in ("layer", "operator"):
        table.add_column(header, overflow="fold")
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    by_name = [{o["name"]: o for o in each if not _is_added(o)} for each in layers]
    for name in dict.fromkeys(name for each in by_name for name in each):
        known = [each.get(name) for each in by_name]
        some = next(operator for operator in known if operator)
        if any(operator and operator["ms"] for operator in known):
            times = (f"{operator['ms']:.3g} ms" if operator else "" for operator in known)
            table.add_row(Text(some["layer"]), some["kind"], *times)
    added = [[o for o in each if _is_added(o)] for each in layers]
    if kinds := sorted({operator["kind"] for each in added for operator in each}):
        sums = (f"{sum(o['ms'] for o in each):.3g} ms" for each in added)
        numbers = " and ".join(str(len(each)) for each in added)
        table.add_section()
        table.add_row(f"conversions by the runtime ({numbers})", ", ".join(kinds), *sums)
    return table


def _is_added(operator: Mapping[str, Any]) -> bool:
    """Return whether the runtime has added the operator: the file knows no such one."""
    return not operator["traffic"] and operator["layer"] == operator["name"]
