"""Keep a sweep's trials in its folder by their keys, each of them whole or absent."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from compressor.errors import CompressorError
from compressor.files.folder import check_target
from compressor.files.whole_file import write_whole
from compressor.report import to_json
from compressor.studies.sweep.carrying_out import Outcome

TRIALS, CURVES = "trials", "curves"
CSV, JSON, PAGE = "results.csv", "results.json", "report.html"
FILES = (CSV, JSON, PAGE, TRIALS, CURVES)
"""Names of all that the folder of a sweep may hold."""


def check_folder(folder: Path) -> None:
    """Check, before any work is done, that a sweep can be kept in the folder.

    Leftovers of a killed sweep are removed. The folder of an earlier sweep is gone on with.

    Raises:
        UsageError: It holds what is not a sweep's.
        CompressorError: It cannot be written.
    """
    _remove_leftovers(folder)
    check_target(folder, force=True, files=FILES)


class Store:
    """The trials' numbers (`KEY.json`), networks (`KEY.onnx`) and times (`KEY.latency.json`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trials = folder / TRIALS
        for part in (self.trials, folder / CURVES):
            _remove_leftovers(part)

    def find(self, key: str) -> Outcome | None:
        """Return the outcome of a trial that succeeded, else None (damaged files too)."""
        record = _read(self.trials / f"{key}.json")
        return Outcome(record) if record is not None and "metrics" in record else None

    def keep(self, key: str, outcome: Outcome) -> None:
        """Write the outcome of a trial."""
        if outcome.onnx is not None:
            self.write(f"{TRIALS}/{key}.onnx", outcome.onnx)
        # the numbers last: where they are, all is there
        self.write(f"{TRIALS}/{key}.json", to_json(outcome.record))

    def onnx(self, key: str) -> Path:
        """Return the path of the network's file, which may not exist."""
        return self.trials / f"{key}.onnx"

    def latency(self, key: str, way: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the times of a trial, if it was timed in this way on this machine, else None."""
        record = _read(self.trials / f"{key}.latency.json")
        return record if record is not None and record.get("way") == dict(way) else None

    def keep_latency(self, key: str, record: Mapping[str, Any]) -> None:
        self.write(f"{TRIALS}/{key}.latency.json", to_json(record))

    def write(self, name: str, content: str | bytes) -> None:
        """Write a file of the folder whole.

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
        with write_whole(path) as temporary:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)

    def remove_curves_but(self, names: Collection[str]) -> None:
        """Remove the pictures of an earlier grid, which do not belong to these results."""
        for file in (self.folder / CURVES).glob("*.svg"):
            if file.name not in names:
                file.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _remove_leftovers(folder: Path) -> None:
    """Remove half-written files of a killed run, known by the hidden names of `written_whole`."""
    patterns = [f".{name}.*" for name in (CSV, JSON, PAGE)]
    if folder.name in (TRIALS, CURVES):
        patterns = [".*.json.*", ".*.onnx.*", ".*.svg.*"]
    for pattern in patterns:
        for file in folder.glob(pattern) if folder.is_dir() else ():
            with suppress(OSError):
                file.unlink()
