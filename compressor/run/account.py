"""Collect the report's contents: what went in, what the network costs, what came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from compressor.formats.job import differences_of
from compressor.graph.network import Network
from compressor.graph.programs.containers import names_of_outputs
from compressor.latency.machine import this_machine
from compressor.latency.on_host import ask_target
from compressor.loading.plain import name_of
from compressor.metrics import FIDELITY, LOWER
from compressor.options import Options
from compressor.processes import processes
from compressor.report import (
    SCHEMA,
    State,
    layer_entries,
    protection_entries,
    time_layers,
    versions,
)
from compressor.run.decide import Cut, describe_budget
from compressor.run.deliver import Delivery
from compressor.run.explaining import explain
from compressor.run.judging import Moment
from compressor.run.opened import Run
from compressor.run.subject import measure_of


def account(
    run: Run,
    made: Cut,
    delivery: Delivery,
    moments: Sequence[Moment],
    differences: Mapping[str, float],
    command: str,
    nearness: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the contents of a run's report, as in report.json.

    Args:
        run: What went in.
        made: The decision, and the sliced network.
        delivery: The files that were written, and the numbers measured of them.
        moments: The metrics after each step, the original's first.
        differences: The largest differences between the forms of the result, by words.
        command: The command as the report shows it.
        nearness: How near the outputs are to the original's, where that was measured.
    """
    sliced = made.sliced
    return {
        **_what_went_in(run, command),
        **_states(delivery, moments),
        "recovery": [moment.to_report() for moment in moments],
        **({} if nearness is None else {FIDELITY: nearness}),
        "budget": describe_budget(run, made.decision),
        "groups": explain(run, made.decision),
        "protected": protection_entries(run.before.network.protections),
        **_what_macs_are_not(run.before.network),
        "counted_independently": {
            "before": asdict(delivery.before.second_count),
            "after": asdict(delivery.after.second_count),
        },
        "form": {
            "form": sliced.plan.form,
            "obstacle": sliced.plan.obstacle,
            "stand_ins": sorted(sliced.plan.stand_ins),
        },
        "differences": {**differences, **differences_of(delivery.formats)},
        "formats": {name: asdict(outcome) for name, outcome in delivery.formats.items()},
        "outputs": names_of_outputs(sliced.program),
        "files": delivery.hashes(),
        "seconds": run.stopwatch.seconds,
        "notes": run.stopwatch.notes,
    }


def _what_macs_are_not(network: Network) -> dict[str, Any]:
    """Return the work that multiply-adds leave out, and the part of them that is thrown away."""
    left_out = [{**asdict(u), "places": list(u.places)} for u in network.uncounted]
    unread = {"layers": list(network.unread.layers), "macs": network.unread.macs}
    return {"uncounted": left_out, "unread": unread}


def _what_went_in(run: Run, command: str) -> dict[str, Any]:
    loaded, options = run.loaded, run.options
    named = {f"input {i}": value for i, value in enumerate(run.examples.args)}
    named |= run.examples.kwargs
    return {
        "schema": SCHEMA,
        "command": command,
        "options": asdict(options),
        "seed": options.seed,
        "versions": versions(),
        "processes": processes(),
        **_machines(run.options),
        "model": {
            "name": loaded.name,
            "recognised": loaded.recognised,
            "weights": loaded.weights,
            "sha256": loaded.sha256,
            "type": name_of(loaded.stored),
        },
        "examples": {
            "origin": run.examples.origin,
            "inputs": [
                {"name": name, "shape": list(value.shape), "dtype": str(value.dtype)[6:]}
                for name, value in named.items()
                if isinstance(value, Tensor)
            ],
        },
        "evaluated_on": run.samples.evaluated_on,
        "evaluated_samples": len(run.samples.test) if run.samples.test else 0,
        **_lower_is_better(run),
    }


def _lower_is_better(run: Run) -> dict[str, Any]:
    """Return which metric is better when it is lower, where one was measured."""
    measure = measure_of(run.subject, run.options, run.samples.test)
    is_lower = run.samples.test is not None and measure.scale.better == LOWER
    return {"lower_is_better": [measure.name]} if is_lower else {}


def _machines(options: Options) -> dict[str, Any]:
    """Return this machine and the target, where another machine is the target."""
    if options.host is None:
        return {}
    return {"machines": {"here": this_machine(), "target": dict(ask_target(options.host).machine)}}


def _states(delivery: Delivery, moments: Sequence[Moment]) -> dict[str, Any]:
    """Return what the network costs before, right after slicing, and at the end.

    Recovery changes no shape, so the sliced network's sizes and latency are those of the result.
    """
    last_cut = [moment for moment in moments if moment.is_cut][-1]
    rows = (
        ("before", delivery.before, moments[0]),
        ("sliced", delivery.after, last_cut),
        ("after", delivery.after, moments[-1]),
    )
    states: dict[str, Any] = {
        name: State(
            *(made.costs.params, made.costs.macs, made.size_bytes, made.latency),
            metrics=moment.metrics,
        ).to_dict()
        for name, made, moment in rows
    }
    before, after = delivery.before, delivery.after
    entries = layer_entries(before.costs.layers, after.costs.layers)
    states["speedups"] = [asdict(ratio) for ratio in delivery.speedups]
    if not before.operators:
        return {**states, "layers": entries}
    layers, other = time_layers(entries, before.operators, after.operators)
    return {**states, "layers": layers, "other_ms": other}
