"""Say what a table's times hold for, and where the table of this machine is kept."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from compressor.files.format_table import EXECUTORCH, NCNN, OPENVINO
from compressor.torch_calls import TORCH

LAYERS_ON = {EXECUTORCH: "cpu", NCNN: "cpu"}
"""Targets whose runtime keeps no record of its operators: what times single layers instead."""


@dataclass(frozen=True)
class Setting:
    """What a table's times hold for on a machine.

    Attributes:
        threads: Threads within one operator.
        batch: Samples in a call.
        device: Where layers are timed, as `--latency-on` spells it.
        precision: What PyTorch computes in.
        there: Processor, cores and runtime of another machine; None: this one.
    """

    threads: int = 1
    batch: int = 1
    device: str = "cpu"
    precision: str = "fp32"
    there: Mapping[str, Any] | None = None

    @property
    def machine(self) -> dict[str, Any]:
        """The machine in this setting."""
        here = machine_of(self.threads, self.batch, self.device, self.precision)
        return here if self.there is None else {**here, **self.there}


def machine_of(threads: int, batch: int, device: str, precision: str = "fp32") -> dict[str, Any]:
    """Return all that a measured time depends on besides the layer: the machine, runtime and call.

    Args:
        threads: Threads within one operator.
        batch: Samples in a call.
        device: As `--latency-on` spells it; "torch-cuda" is PyTorch on a GPU.
        precision: What PyTorch computes in.
    """
    return {
        **this_machine(device),
        "device": device if device == "cpu" else _accelerator(device),
        "threads": threads,
        "batch": batch,
        "dtype": {"fp32": "float32"}.get(precision, precision),
    }


def this_machine(device: str = "cpu") -> dict[str, Any]:
    """Return this machine's processor, its cores, and the runtime for the device."""
    return {"processor": _processor(), "cores": os.cpu_count(), "runtime": _runtime(device)}


def path_in_cache(machine: Mapping[str, Any]) -> Path:
    """Return the path of a machine's table in the user's cache folder."""
    digest = hashlib.sha256(json.dumps(machine, sort_keys=True).encode()).hexdigest()[:16]
    return _tables() / f"{digest}.json"


def forget_tables() -> int:
    """Remove all tables from the user's cache folder, and return how many there were."""
    paths = list(_tables().glob("*.json"))
    for path in paths:
        path.unlink(missing_ok=True)
    return len(paths)


def _tables() -> Path:
    return cache_folder() / "latency"


def cache_folder() -> Path:
    """Return the folder for our caches, where the platform wants caches to be."""
    given = os.environ.get("XDG_CACHE_HOME")
    if given:
        return Path(given) / "compressor"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "compressor"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home()) / "compressor" / "cache"
    return Path.home() / ".cache" / "compressor"


def _processor() -> str:
    """Return the processor's name as its maker gives it, with the architecture."""
    info, name = Path("/proc/cpuinfo"), platform.processor()
    if info.exists():
        lines = (line.partition(":") for line in info.read_text().splitlines())
        name = next((value.strip() for key, _, value in lines if key.strip() == "model name"), name)
    return f"{name} ({platform.machine()})".strip()


def _runtime(device: str) -> str:
    if device in LAYERS_ON:
        return f"{device} {version(device)}"
    others = OPENVINO if device == OPENVINO else "onnxruntime"
    package = import_module("torch" if device.startswith(TORCH) else others)
    return f"{package.__name__} {package.__version__}"


def _accelerator(device: str) -> str:
    import torch

    is_known = device.removeprefix(TORCH) == "cuda" and torch.cuda.is_available()
    return f"{device} {torch.cuda.get_device_name()}" if is_known else device
