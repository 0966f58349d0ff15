"""Find what the analysis says of a network, before anything is chosen: `compress inspect`.

The description has schema 1. A group's share of the MACs is how much of the network's multiply-adds
goes when all but one of its channels go: what pruning this group alone could save at most. Shares
overlap, since a layer's cost depends on the channels that it reads and on those that it makes. A
block's share is what goes with it alone; that of the time is added where layers are timed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table
from rich.text import Text
from torch import nn

from compressor.choose import KINDS, LATENCY
from compressor.choose.blocks import saved_by
from compressor.formats.original import Original
from compressor.graph.analysis import analyse
from compressor.graph.blocks import Block, find_blocks
from compressor.graph.costs import notes_on_macs
from compressor.graph.network import Network
from compressor.latency import LatencyModel
from compressor.listing import some_of
from compressor.loading import find_examples
from compressor.options import InspectOptions, Options
from compressor.records import ExampleInputs, Group, LoadedModel, Trace
from compressor.report import protection_entries
from compressor.run.loaded import open_model
from compressor.run.opening import capture
from compressor.run.timing import aim, timing_of
from compressor.studies.tables import empty_table
from compressor.watch import Stopwatch, Watch

SCHEMA = 1
_SHOWN = 4
"""The most layers, places or tensors that a table's cell lists; the JSON has all."""


@dataclass(frozen=True)
class Inspection:
    """A network that was loaded, traced and analysed, with what is known from each step.

    `clock` predicts its time, where that was asked for.
    """

    loaded: LoadedModel
    examples: ExampleInputs
    trace: Trace
    network: Network
    notes: Sequence[str]
    blocks: Sequence[Block]
    clock: LatencyModel | None = None


def inspect(model: nn.Module | str, options: InspectOptions, watch: Watch) -> Inspection:
    """Load, trace and analyse a network.

    Args:
        model: A module, or a MODEL as on the command line.
        options: How it is opened, and what is shown of it.
        watch: Shows progress and notes.

    Raises:
        UsageError: The layers cannot be timed there.
        CompressorError: The model cannot be loaded, run, captured or timed.
    """
    stopwatch = Stopwatch(watch)
    with stopwatch.stage("load"):
        loaded = open_model(model, options, may_wait=not options.time)
    with stopwatch.stage("example inputs"):
        examples = find_examples(loaded, options.input)
    traced = capture(loaded, examples, stopwatch)
    with stopwatch.stage("analyse"):
        network = analyse(traced)
    for note in (*notes_on_macs(traced, network), *network.remarks):
        stopwatch.note(note)
    blocks = find_blocks(traced.program)
    clock = _clock(traced, network, options, stopwatch) if options.time else None
    return Inspection(loaded, examples, traced, network, stopwatch.notes, blocks, clock)


def _clock(
    traced: Trace, network: Network, options: InspectOptions, stopwatch: Stopwatch
) -> LatencyModel | None:
    """Return what predicts the network's time, as for a budget of latency."""
    timed = Options(
        of="latency",
        round_to=1,
        latency_on=options.latency_on,
        latency_table=options.latency_table,
        threads=options.threads,
        batch=options.batch,
    )
    timed = aim(timed, stopwatch)
    original = Original(traced)
    return timing_of(traced, network, original, timed, stopwatch, with_clock=True).clock


# -- as data -------------------------------------------------------------------------------------


def describe(inspection: Inspection) -> dict[str, Any]:
    """Return everything that was found as plain data, for JSON."""
    network, loaded = inspection.network, inspection.loaded
    return {
        "schema": SCHEMA,
        "model": {
            "name": loaded.name,
            "recognised": loaded.recognised,
            "weights": loaded.weights,
            "sha256": loaded.sha256,
        },
        "example_inputs": inspection.examples.origin,
        "notes": list(inspection.notes),
        "totals": _totals(inspection),
        "groups": [_group_entry(network, group) for group in network.groups],
        "blocks": [_block_entry(inspection, block) for block in inspection.blocks],
        "protected": [asdict(protection) for protection in network.protections],
    }


def _totals(inspection: Inspection) -> dict[str, float]:
    cost, clock = inspection.network.cost, inspection.clock
    totals = {unit: cost.of(unit) for unit in ("macs", "params", "channels")}
    return totals | ({"latency_ms": clock.latency_ms({})} if clock is not None else {})


def _block_entry(inspection: Inspection, block: Block) -> dict[str, Any]:
    clock = inspection.clock
    shares = {
        f"{unit}_share": saved_by(inspection.network, block, unit, clock)
        for unit in ("macs", "params", *((LATENCY,) if clock is not None else ()))
    }
    return {"name": block.name, "place": block.place, **shares}


def _group_entry(network: Network, group: Group) -> dict[str, Any]:
    return {
        "name": group.name,
        "size": group.size,
        "role": group.role,
        "macs_share": macs_share(network, group),
        "layers": list(dict.fromkeys(_layer(member.tensor) for member in group.members)),
        "members": [asdict(member) for member in group.members],
    }


def macs_share(network: Network, group: Group) -> float:
    """Return the share of the network's MACs, 0 to 1, that is saved by keeping one channel of the
    group."""
    whole = network.cost.macs()
    return 1 - network.cost.macs(network.sizes({group.name: 1})) / whole if whole else 0.0


def _layer(tensor: str) -> str:
    """Return the path of the module that owns a tensor; for the model's own tensors their name."""
    return tensor.rpartition(".")[0] or tensor


# -- as tables -----------------------------------------------------------------------------------


def tables(description: Mapping[str, Any], inspection: Inspection) -> list[Table]:
    """Make the tables of what can shrink and of what stays, for the terminal.

    Args:
        description: What `describe` returns.
        inspection: The network that it describes.
    """
    groups = empty_table("groups", ("group", "role", "layers"), ("size", "share of MACs"))
    usual = sorted(name for name, kind in KINDS.items() if kind.by_default)
    groups.caption = f"pruned unless told otherwise: {', '.join(usual)}"
    for entry in description["groups"]:
        share = f"{entry['macs_share']:.1%}"
        _add(
            groups,
            entry["name"],
            entry["role"],
            some_of(entry["layers"], _SHOWN),
            entry["size"],
            share,
        )
    shares = {"macs_share": "share of MACs", "params_share": "of params"}
    if inspection.clock is not None:
        shares[f"{LATENCY}_share"] = "of time"
    blocks = empty_table("blocks (--prune block)", ("block", "added at"), shares.values())
    for entry in description["blocks"]:
        _add(blocks, entry["name"], entry["place"], *(f"{entry[key]:.1%}" for key in shares))
    kept = empty_table("protected", ("reason", "places", "tensors"), ())
    for entry in protection_entries(inspection.network.protections):
        _add(
            kept,
            entry["reason"],
            some_of(entry["places"], _SHOWN),
            some_of(entry["tensors"], _SHOWN),
        )
    return [groups, *([blocks] if description["blocks"] else []), kept]


def opinion_table(opinion: Mapping[str, Any]) -> Table:
    """Make the table of where another library's couplings differ from ours.

    Args:
        opinion: What `second_opinion` returns.
    """
    title = f"where {opinion['by']} differs ({opinion['agree']} groups are the same)"
    shown = empty_table(title, ("group", "only ours", "only theirs", "why"), ())
    for entry in opinion["differences"]:
        columns = (entry["only_ours"], entry["only_theirs"], entry["reasons"])
        _add(shown, entry["group"], *(some_of(column, _SHOWN) for column in columns))
    return shown


def _add(table: Table, *cells: Any) -> None:
    table.add_row(*(Text(str(cell)) for cell in cells))
