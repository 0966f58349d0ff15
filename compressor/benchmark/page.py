"""What a benchmark found, as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from compressor.benchmark.explaining import Slow
from compressor.benchmark.ways import Way

_HEADERS = ("", "ms: p50", "p90", "p99", "faster", "samples/s", "GFLOP/s", "MB")
LISTED = 8


def networks_table(networks: Sequence[Mapping[str, Any]]) -> Table:
    """Sizes of the files, and what they compute."""
    table = Table(title="networks", title_justify="left")
    for header in ("", "MACs", "parameters", "ONNX file"):
        table.add_column(header, justify="right" if header else "left", overflow="fold")
    for network in networks:
        cells = (network["macs"] / 1e6, network["params"] / 1e6, network["size_bytes"] / 1e6)
        macs, params, size = (f"{value:.4g}" for value in cells)
        table.add_row(Text(network["name"]), f"{macs} M", f"{params} M", f"{size} MB")
    return table


def way_table(way: Way, records: Iterable[Mapping[str, Any]]) -> Table:
    """One way: the first network's ratio is to itself in a second process."""
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
            f"{record['peak_mb']:.0f}",
        )
    return table


def slow_table(name: str, slow: Sequence[Slow]) -> Table:
    """Layers whose time did not follow their multiply-adds."""
    more = f" ({len(slow) - LISTED} more)" if len(slow) > LISTED else ""
    table = Table(
        title=f"{name}: layers whose time did not follow their MACs{more}", title_justify="left"
    )
    for header in ("layer", "before", "after", "MACs left", "time left", "why", "try"):
        table.add_column(header, overflow="fold")
    for layer in slow[:LISTED]:
        table.add_row(
            Text(layer.layer),
            f"{layer.before_ms:.3g} ms",
            f"{layer.after_ms:.3g} ms",
            f"{layer.macs_left:.0%}",
            f"{layer.time_left:.0%}",
            layer.why,
            layer.next_step,
        )
    return table


def layers_table(names: Sequence[str], layers: Sequence[Sequence[Mapping[str, Any]]]) -> Table:
    """Milliseconds of each operator that takes any, in all networks; the runtime's own at the
    end."""
    table = Table(title="layers, ONNX Runtime, 1 thread, batch 1", title_justify="left")
    for header in ("layer", "operator"):
        table.add_column(header, overflow="fold")
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    found = [{operator["name"]: operator for operator in each} for each in layers]
    for name in dict.fromkeys(name for each in found for name in each):
        known = [each.get(name) for each in found]
        some = next(operator for operator in known if operator)
        if any(operator and operator["ms"] for operator in known):
            times = (f"{operator['ms']:.3g} ms" if operator else "" for operator in known)
            table.add_row(Text(some["layer"]), some["kind"], *times)
    return table
