"""Collect what an ONNX file says of where it comes from: its source, its plan, what made it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compressor.files.folder import PLAN, REPORT
from compressor.report import versions

_PACKAGES = ("compressor", "torch", "onnx")


def provenance(
    *,
    source: str | None = None,
    plan: str | None = None,
    macs: tuple[Any, Any] | None = None,
) -> dict[str, str]:
    """Return the metadata entries by name; what is not known has none.

    Args:
        source: SHA-256 of the network that was compressed.
        plan: The plan's text.
        macs: Multiply-adds of one sample, before and after.
    """
    known = {
        "source.sha256": source,
        "plan.sha256": hashlib.sha256(plan.encode()).hexdigest() if plan is not None else None,
        "macs.before": macs and macs[0],
        "macs.after": macs and macs[1],
    }
    installed = versions()
    known |= {f"version.{name}": installed.get(name) for name in _PACKAGES}
    return {f"compress.{name}": str(value) for name, value in known.items() if value is not None}


def provenance_of(folder: Path) -> dict[str, str]:
    """Return the entries of `provenance` from the plan and the report in a result's folder."""
    report, plan = _text(folder / REPORT), _text(folder / PLAN)
    try:
        told: Mapping[str, Any] = json.loads(report or "")
        source = told["model"]["sha256"]
        macs = told["before"]["macs"], told["after"]["macs"]
    except (ValueError, KeyError, TypeError):
        return provenance(plan=plan)
    return provenance(source=source, plan=plan, macs=macs)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
