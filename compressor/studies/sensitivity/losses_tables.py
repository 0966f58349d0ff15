"""Show a sensitivity on the terminal: a table of the groups, and one of the blocks."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from compressor.choose.curves import Sensitivity
from compressor.studies.tables import empty_table


def tables(found: Sensitivity) -> list[Table]:
    """Build the tables for the terminal: a row per group, a column per ratio; a row per block."""
    return [_groups_table(found), *([_blocks_table(found)] if found.blocks else [])]


def _groups_table(found: Sensitivity) -> Table:
    numbers = ("size", "share of MACs", *(f"-{ratio:.0%}" for ratio in found.ratios))
    shown = _empty_table(found, "one group cut", ("group", "role"), numbers)
    for curve in found.groups:
        name = curve.name if curve.exact else f"{curve.name} (approximate)"
        values = [_value(found, point.value) for point in curve.points]
        cells = [name, curve.role, str(curve.size), f"{curve.macs_share:.1%}"]
        shown.add_row(*map(Text, [*cells, *(values or ["" for _ in found.ratios])]))
    return shown


def _blocks_table(found: Sensitivity) -> Table:
    numbers = ("share of MACs", "of params", "without it")
    shown = _empty_table(found, "one block gone", ("block", "added at"), numbers)
    for block in found.blocks:
        shares = (f"{share:.1%}" for share in (block.macs_share, block.params_share))
        cells = (block.name, block.place, *shares, _value(found, block.value))
        shown.add_row(*map(Text, cells))
    return shown


def _empty_table(
    found: Sensitivity, how: str, texts: Sequence[str], numbers: Sequence[str]
) -> Table:
    whole = _value(found, found.baseline)
    title = f"{found.metric} of {found.model['name']} with {how} (uncut: {whole})"
    return empty_table(title, texts, numbers)


def _value(found: Sensitivity, value: float) -> str:
    return f"{value:.1%}" if found.metric == "top1" else f"{value:.3g}"
