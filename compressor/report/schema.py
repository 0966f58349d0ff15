"""Load the JSON schema of report.json."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any


def report_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of report.json."""
    file = resources.files("compressor.report") / "templates" / "report.schema.json"
    schema: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return schema
