"""The tests that are marked `gpu`; a dry run takes their twins on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tools.gpu_rows.places import ROOT
from tools.gpu_rows.records import Row
from tools.gpu_rows.scale import Scale
from tools.jsonl import append_line, read_lines

TOLD = "GPU_ROWS_TOLD"
"""The environment's name of the file that the plugin writes."""
FILE = "tests/test_gpu.py"
SECONDS = 50
"""After which the outcomes so far are recorded: within the part's limit."""
BRIEF = "moves or timed"
"""Those that a dry run takes; the whole file runs with all other tests."""


def rows(scale: Scale) -> Iterator[Row]:
    """All tests in one process, which is one row: starting anew would cost more than they do."""
    yield Row("tests", {"file": FILE}, lambda: _run(scale))


def _run(scale: Scale) -> Mapping[str, Any]:
    chosen = ["-m", "not gpu", "-k", BRIEF] if scale.is_dry else ["-m", "gpu"]
    plugin = ["-p", "tools.gpu_rows.parts.testing", "-p", "no:cacheprovider"]
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told.jsonl"
        words = [sys.executable, "-m", "pytest", FILE, *chosen, *plugin]
        asked = {"cwd": ROOT, "env": {**os.environ, TOLD: str(told)}, "check": False}
        is_stopped = False
        try:
            subprocess.run(words, timeout=None if scale.is_dry else SECONDS, **asked)
        except subprocess.TimeoutExpired:
            is_stopped = True
        outcomes = {line["test"]: line["outcome"] for line in read_lines(told)}
    counts = {
        kind: sum(outcome == kind for outcome in outcomes.values())
        for kind in ("passed", "failed", "skipped")
    }
    bad = [test for test, outcome in outcomes.items() if outcome == "failed"]
    found: dict[str, Any] = {**counts, "failures": bad, "is_stopped": is_stopped}
    if bad or not counts["passed"]:
        found["failure"] = f"failed: {', '.join(bad)}" if bad else "no test was run"
    return found


def pytest_runtest_logreport(report: Any) -> None:
    """As a plugin of pytest: tell the outcome of each test at once."""
    is_the_call = report.when == "call" or report.outcome != "passed"
    if is_the_call and (path := os.environ.get(TOLD)):
        append_line(Path(path), {"test": report.nodeid, "outcome": report.outcome})


__all__ = ["pytest_runtest_logreport", "rows"]
