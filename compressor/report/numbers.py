"""Collect the numbers of a run, as machines read them.

`report.json` has schema 1. MACs are multiply-adds for a batch of one, FLOPs are 2 x MACs; metrics
are shares between 0 and 1 where they are accuracies.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from compressor.records import Group, Latency, Protection, to_number

SCHEMA = 1
_PACKAGES = ("compressor", "torch", "torchvision", "timm", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class State:
    """The network at one moment of a run.

    Attributes:
        params: Number of elements in the parameters; tied tensors count once.
        macs: Multiply-adds of one sample.
        size_bytes: Size of the ONNX file, 0 without one.
        latency: Measured times, one for each way of running it.
        metrics: Metrics by name.
    """

    params: int
    macs: int
    size_bytes: int
    latency: tuple[Latency, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "flops": 2 * self.macs}


def versions() -> dict[str, str]:
    """Return the versions of everything that influences the numbers."""
    known = {"python": platform.python_version(), "machine": platform.machine()}
    for package in _PACKAGES:
        try:
            known[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return known


def group_entries(
    groups: Iterable[Group], keep: Mapping[str, Sequence[int]]
) -> list[dict[str, Any]]:
    """Return one entry per group: name, role, size and how many channels are kept."""
    return [
        {
            "name": group.name,
            "role": group.role,
            "size": group.size,
            "kept": len(keep.get(group.name, range(group.size))),
        }
        for group in groups
    ]


def protection_entries(protections: Iterable[Protection]) -> list[dict[str, Any]]:
    """Return one entry per reason, with every place and tensor dimension that it reaches."""
    by_reason: dict[str, list[Protection]] = {}
    for protection in protections:
        by_reason.setdefault(protection.reason, []).append(protection)
    return [
        {
            "reason": reason,
            "places": list(dict.fromkeys(p.place for p in those if p.place)),
            "tensors": sorted({tensor for p in those for tensor in p.tensors}),
        }
        for reason, those in by_reason.items()
    ]


def layer_entries(before: Mapping[str, int], after: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return one entry per layer: name, and its MACs before and after.

    Some layers are one place in the smaller network alone, such as a module that runs its traced
    operators; these are one entry for both.
    """
    whole = after.keys() - before.keys()
    entries: dict[str, dict[str, Any]] = {}
    for moment, layers in (("before", before), ("after", after)):
        for name, macs in layers.items():
            place = next((above for above in _upwards(name) if above in whole), name)
            entry = entries.setdefault(place, {"name": place, "before": 0, "after": 0})
            entry[moment] += macs
    return list(entries.values())


class TimedOperator(Protocol):
    """An operator of an ONNX file: the module that it belongs to, and its milliseconds."""

    @property
    def layer(self) -> str: ...

    @property
    def ms(self) -> float: ...


def time_layers(
    entries: Sequence[Mapping[str, Any]],
    before: Iterable[TimedOperator],
    after: Iterable[TimedOperator],
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Add milliseconds to layers' entries; operators count for the innermost layer around.

    Args:
        entries: What `layer_entries` returns; they are not changed.
        before, after: The operators of both networks' files.

    Returns:
        The entries with each layer's milliseconds before and after, and the milliseconds of all
        other operators together.
    """
    names = {entry["name"] for entry in entries} - {""}
    times: dict[str, dict[str, float]] = {name: {"before": 0.0, "after": 0.0} for name in names}
    other = {"before": 0.0, "after": 0.0}
    for moment, operators in (("before", before), ("after", after)):
        for operator in operators:
            place = next((above for above in _upwards(operator.layer) if above in names), None)
            (times[place] if place is not None else other)[moment] += operator.ms
    timed = [
        {**entry, **{f"{moment}_ms": ms for moment, ms in times[entry["name"]].items()}}
        if entry["name"] in times
        else dict(entry)
        for entry in entries
    ]
    return timed, other


def _upwards(name: str) -> Iterator[str]:
    """Yield the path of a module, of its parent, and so on up to the network's, which is ""."""
    while name:
        yield name
        name = name.rpartition(".")[0]
    yield name


def to_json(report: Mapping[str, Any]) -> str:
    """Return the text of report.json."""
    return json.dumps(finite(report), indent=1, allow_nan=False, default=to_number) + "\n"


def finite(value: Any) -> Any:
    """Replace NaN and infinities in nested data by None, since JSON has neither."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
