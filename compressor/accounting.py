"""The report's contents: what went in, what each moment of the network costs, what came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.beginning import ended_after
from compressor.delivery import Delivery
from compressor.explaining import explained
from compressor.measure import count_params, macs_by_layer
from compressor.planning import Planned
from compressor.processes import processes
from compressor.records import Trace
from compressor.report import SCHEMA, State, layer_entries, protection_entries, versions
from compressor.slicing import Sliced


def account(
    planned: Planned,
    sliced: Sliced,
    delivery: Delivery,
    recovery: Sequence[Mapping[str, Any]],
    difference: float,
    command: str,
) -> dict[str, Any]:
    """The report of a run; `difference` is the largest between program and module."""
    return {
        **_what_went_in(planned, command),
        **_states(planned, sliced.module, delivery, recovery),
        "recovery": recovery,
        "budget": planned.budget(),
        "groups": explained(planned),
        "protected": protection_entries(planned.network.protections),
        "form": {
            "form": sliced.plan.form,
            "obstacle": sliced.plan.obstacle,
            "stand_ins": sorted(sliced.plan.stand_ins),
        },
        "differences": {
            "program and module": difference,
            "program and ONNX file": delivery.onnx_difference,
        },
        "seconds": planned.stopwatch.seconds,
        "notes": planned.stopwatch.notes,
    }


def _what_went_in(planned: Planned, command: str) -> dict[str, Any]:
    loaded, options = planned.loaded, planned.options
    named = {f"input {i}": value for i, value in enumerate(planned.examples.args)}
    named |= planned.examples.kwargs
    return {
        "schema": SCHEMA,
        "command": command,
        "options": asdict(options),
        "seed": options.seed,
        "versions": versions(),
        "processes": processes(),
        "model": {
            "name": loaded.name,
            "recognised": loaded.recognised,
            "weights": loaded.weights,
            "sha256": loaded.sha256,
        },
        "examples": {
            "origin": planned.examples.origin,
            "inputs": [
                {"name": name, "shape": list(value.shape), "dtype": str(value.dtype)[6:]}
                for name, value in named.items()
                if isinstance(value, Tensor)
            ],
        },
        "evaluated_on": planned.samples.evaluated_on,
        "evaluated_samples": len(planned.samples.test) if planned.samples.test else 0,
    }


def _states(
    planned: Planned,
    module: nn.Module,
    delivery: Delivery,
    recovery: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The network before, right after slicing, and at the end. Recovery changes no shape, so the
    sliced network's sizes and latency are those of the result."""
    sliced = [step for step in recovery if step["step"].endswith("sliced")][-1]
    before = _costs(planned.trace.module, planned.trace)
    after = _costs(module, planned.trace)
    moments = (
        ("before", before, delivery.before, recovery[0]),
        ("sliced", after, delivery.after, sliced),
        ("after", after, delivery.after, recovery[-1]),
    )
    states = {
        name: State(costs.params, costs.macs, file.size_bytes, file.latency, step["metrics"])
        for name, costs, file, step in moments
    }
    return {
        **{name: state.to_dict() for name, state in states.items()},
        "layers": layer_entries(before.layers, after.layers),
    }


@dataclass(frozen=True)
class _Costs:
    """Parameters, and the MACs of one sample by layer."""

    params: int
    macs: int
    layers: Mapping[str, int]


def _costs(module: nn.Module, traced: Trace) -> _Costs:
    """Counted on the network itself; with a batch that is not free, a sample's share of it. What a
    detector computes later depends on what it finds, and is not counted."""
    examples = (traced.examples.args, dict(traced.examples.kwargs))
    one = pytree.tree_map(lambda x: x[:1] if isinstance(x, Tensor) and x.dim() else x, examples)
    args, kwargs = examples if traced.batch_symbol is None else one
    samples = traced.batch if traced.batch_symbol is None else 1
    with ended_after(module, traced.ends_after):
        layers = macs_by_layer(module, args, kwargs)
    macs = sum(layers.values()) // samples
    return _Costs(
        count_params(module), macs, {name: count // samples for name, count in layers.items()}
    )
