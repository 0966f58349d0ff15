"""Where and when something was measured."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from compressor.latency.machine import machine_of
from compressor.report import versions


def where(device: str = "cpu") -> dict[str, Any]:
    """Return the device, the date, and the versions that numbers depend on."""
    machine = machine_of(1, 1, "cpu")
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else machine["processor"],
        "processor": machine["processor"],
        "cores": os.cpu_count(),
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        **{name: versions()[name] for name in ("torch", "onnxruntime")},
    }


def measured_on(records: Iterable[Mapping[str, Any]]) -> str:
    """Return a sentence for a page, of the records that say where they were made, or ""."""
    days: dict[str, dict[str, set[str]]] = {}
    for place in (record["where"] for record in records if "where" in record):
        machine = (
            f"{place['device']}, {place['cores']} cores, torch {place['torch']}, "
            f"onnxruntime {place['onnxruntime']}"
        )
        codes = days.setdefault(machine, {}).setdefault(place["date"], set())
        codes.update({place["code"]} if "code" in place else ())
    said = [f"{machine}: {_dates(days[machine])}" for machine in sorted(days)]
    return f"Measured on: {'; '.join(said)}." if said else ""


def _dates(days: Mapping[str, set[str]]) -> str:
    """Return the days in words, with the product's code of each as far as it is known."""
    return ", ".join(
        f"{day} (the product's code of {', '.join(sorted(codes))})" if codes else day
        for day, codes in sorted(days.items())
    )
