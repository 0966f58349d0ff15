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
    said = dict.fromkeys(
        f"{w['device']}, {w['cores']} cores, torch {w['torch']}, onnxruntime {w['onnxruntime']}, "
        f"{w['date']}" + (f", the product's code of {w['code']}" if "code" in w else "")
        for w in (record["where"] for record in records if "where" in record)
    )
    return f"Measured on: {'; '.join(sorted(said))}." if said else ""
