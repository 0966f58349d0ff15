"""What a sweep keeps in its folder: trials by their key, each whole or not there."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from compressor.errors import CompressorError
from compressor.files.folder import check_target
from compressor.files.whole_file import written_whole
from compressor.report import to_json
from compressor.sweep.trial import Outcome

TRIALS, CURVES = "trials", "curves"
CSV, JSON, PAGE = "results.csv", "results.json", "report.html"
FILES = (CSV, JSON, PAGE, TRIALS, CURVES)
"""What the folder of a sweep may hold."""


def check_folder(folder: Path) -> None:
    """Raise before any work is done if a sweep could not be kept there. An earlier sweep's folder
    is gone on with.

    Raises:
        UsageError: It holds what is not a sweep's.
        CompressorError: It cannot be written.
    """
    _remove_leftovers(folder)
    check_target(folder, force=True, files=FILES)


class Store:
    """Trials' numbers (`KEY.json`), networks (`KEY.onnx`) and times (`KEY.latency.json`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trials = folder / TRIALS
        for part in (self.trials, folder / CURVES):
            _remove_leftovers(part)

    def kept(self, key: str) -> Outcome | None:
        """What came of a trial, if it has succeeded; a file that was damaged is not there."""
        record = _read(self.trials / f"{key}.json")
        return Outcome(record) if record is not None and "metrics" in record else None

    def keep(self, key: str, outcome: Outcome) -> None:
        """The numbers last: where they are, all is there."""
        if outcome.onnx is not None:
            self.write(f"{TRIALS}/{key}.onnx", outcome.onnx)
        self.write(f"{TRIALS}/{key}.json", to_json(outcome.record))

    def onnx(self, key: str) -> Path:
        """The network's file; it may not be there."""
        return self.trials / f"{key}.onnx"

    def latency(self, key: str, way: Mapping[str, Any]) -> dict[str, Any] | None:
        """What was timed, if it was timed in this way on this machine."""
        record = _read(self.trials / f"{key}.latency.json")
        return record if record is not None and record.get("way") == dict(way) else None

    def keep_latency(self, key: str, record: Mapping[str, Any]) -> None:
        self.write(f"{TRIALS}/{key}.latency.json", to_json(record))

    def write(self, name: str, content: str | bytes) -> None:
        """A file of the folder, whole.

        Raises:
            CompressorError: It cannot be written.
        """
        path = self.folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CompressorError(
                f"the output folder cannot be written: {error.strerror or error}",
                where=str(path.parent),
                consequence="what was there before is untouched",
                next_step="give another folder with --out",
            ) from None
        with written_whole(path) as temporary:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)

    def remove_curves_but(self, names: Collection[str]) -> None:
        """Pictures of an earlier grid, which are not of these results."""
        for file in (self.folder / CURVES).glob("*.svg"):
            if file.name not in names:
                file.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _remove_leftovers(folder: Path) -> None:
    """Files that a kill left half-written have the hidden names that `written_whole` gives."""
    patterns = [f".{name}.*" for name in (CSV, JSON, PAGE)]
    if folder.name in (TRIALS, CURVES):
        patterns = [".*.json.*", ".*.onnx.*", ".*.svg.*"]
    for pattern in patterns:
        for file in folder.glob(pattern) if folder.is_dir() else ():
            with suppress(OSError):
                file.unlink()
