"""What of a folder must be the same, however often a run was killed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from compressor.files.integrity import check_files, hashed_names
from compressor.studies.sweep.curves_of_trials import TIMES

SAME = ("plan.json", "model.safetensors", "model.onnx", "model.pt2", "original.onnx")
"""Files of a result that are the same, byte for byte; of the others only the names are."""

Contents = dict[str, bytes]
"""By name; nothing where the content is not the same every time."""


def of_result(folder: Path) -> Contents:
    """Of what compress writes; its files are those that its report tells of."""
    check_files(folder, hashed_names())
    return {p.name: p.read_bytes() if p.name in SAME else b"" for p in folder.iterdir()}


def of_sweep(folder: Path) -> Contents:
    """Of a sweep: trials and the table, without seconds. A file that is cut off does not parse."""
    trials = folder / "trials"
    found = {path.name: path.read_bytes() for path in trials.glob("*.onnx")}
    for path in (*trials.glob("*.json"), *folder.glob("results.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if path.parent == trials and not path.name.endswith(".latency.json"):
            record.pop("seconds")
            found[path.name] = json.dumps(record).encode()
    for path in folder.glob("results.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            rows = [
                {k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)
            ]
        found[path.name] = json.dumps(rows).encode()
    return found


def trials_of(folder: Path) -> dict[str, float]:
    """The seconds of the trials that are kept: who does one again takes others."""
    kept = (p for p in (folder / "trials").glob("*.json") if not p.name.endswith(".latency.json"))
    return {p.name: json.loads(p.read_text(encoding="utf-8"))["seconds"] for p in kept}
