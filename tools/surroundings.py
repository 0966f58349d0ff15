"""Where and when something was measured."""

from __future__ import annotations

import datetime
import os
from typing import Any

import torch

from compressor.latency.machine import machine_of
from compressor.report import versions


def where(device: str = "cpu") -> dict[str, Any]:
    """The device, the date, and the versions that numbers depend on."""
    machine = machine_of(1, 1, "cpu")
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else machine["processor"],
        "processor": machine["processor"],
        "cores": os.cpu_count(),
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        **{name: versions()[name] for name in ("torch", "onnxruntime")},
    }
