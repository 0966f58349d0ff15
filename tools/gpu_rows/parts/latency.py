"""PyTorch's time of networks before and after, at half of the MACs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cache, partial
from typing import Any

from compressor.studies.bench import Way, time_modules
from tools.gpu_rows.networks import GROUPS, found_or_made, networks
from tools.gpu_rows.records import Row
from tools.gpu_rows.scale import Scale

SECONDS, BRIEFLY = 1.0, 0.05
BATCHES, PRECISIONS = (256, 1, 32), ("bf16", "tf32", "fp32")
BACKENDS = ("torch-graphs", "torch", "torch-compiled")
"""The most valuable first; compiling takes minutes, so that it comes last."""


def ways(scale: Scale) -> list[Way]:
    """In the order of their worth."""
    if scale.is_dry:
        return [Way("torch", "cpu", 1, 2)]
    every = itertools.product(BACKENDS, PRECISIONS, BATCHES)
    found = [Way(name, "cuda", 1, batch, precision) for name, precision, batch in every]
    return sorted(found, key=lambda way: way.backend == "torch-compiled")


def rows(scale: Scale) -> Iterator[Row]:
    """For each way all networks, what was made beforehand first."""
    for way in ways(scale):
        for group in GROUPS:
            for name in networks(scale):
                find = partial(_timed, name, group, way, scale)
                yield Row("latency", key_of(name, group, way), find)


def key_of(name: str, group: str, way: Way) -> dict[str, Any]:
    """Of a network's row: smaller forms of a group, timed in one way."""
    how = {"backend": way.backend, "precision": way.precision, "batch": way.batch}
    return {"network": name, "made": group, **how}


def _timed(name: str, group: str, way: Way, scale: Scale) -> Mapping[str, Any]:
    network, smaller = networks(scale)[name], {}
    left: dict[str, float] = {}
    failures: dict[str, str] = {}
    for method in GROUPS[group]:
        try:
            made = _made(name, group, method, scale)
        except Exception as error:  # a rival's, which is recorded
            failures[method] = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        else:
            smaller[method], left[method] = made.module, made.macs_left
    if not smaller:
        raise RuntimeError(f"no smaller network could be made: {failures}")
    found = time_modules(
        {"original": network.factory().eval(), **smaller},
        (network.images(way.batch),),
        {},
        way,
        seconds=BRIEFLY if scale.is_dry else SECONDS,
    )
    times = {
        record["name"]: {"ms": record["ms"]["p50"], "faster": record["faster"]} for record in found
    }
    return {"times": times, "macs_left": left, "failures": failures, "way": asdict(way)}


@cache
def _made(name: str, group: str, method: str, scale: Scale) -> Any:
    return found_or_made(name, method, GROUPS[group], scale)
