"""Runs members one process each, and keeps what they found in a file, one line per member."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tools.jsonl import append_line, read_lines
from tools.zoo.members import Subject
from tools.zoo.passing import Pass, Record

PACKAGES = ("torch", "torchvision", "timm", "transformers", "onnxruntime", "ultralytics")


@dataclass(frozen=True)
class Limits:
    """Per member."""

    seconds: int = 900
    memory_gb: float = 16
    onnx_seconds: int = 240


@dataclass(frozen=True)
class Job:
    """A member to run, and the arguments that its process gets beside its name."""

    zoo: str
    name: str
    arguments: tuple[str, ...] = ()
    tool: str = "tools.zoo"


# -- the file ------------------------------------------------------------------------------------


def read(path: Path) -> dict[tuple[str, str], Record]:
    """The latest record of every member; a line cut off by an interruption is dropped."""
    return {(record["zoo"], record["name"]): record for record in read_lines(path)}


def circumstances() -> Record:
    """Date, class of machine and versions, for every record."""
    return {
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, "
        f"Python {platform.python_version()}",
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


# -- processes -----------------------------------------------------------------------------------


def run_all(
    jobs: Iterable[Job], path: Path, limits: Limits, workers: int, tell: Callable[[Record], None]
) -> None:
    """Run every job and append its record; `tell` hears of each as it ends."""
    with ThreadPoolExecutor(workers) as pool:
        running = [pool.submit(run_apart, job, limits) for job in jobs]
        try:
            for done in as_completed(running):
                record = done.result()
                append_line(path, record)
                tell(record)
        except KeyboardInterrupt:
            for future in running:
                future.cancel()
            raise


def run_apart(job: Job, limits: Limits) -> Record:
    """Run one member in a process of its own; whatever happens to it, there is a record."""
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "record.json"
        command = [
            *(sys.executable, "-m", job.tool, "member", job.zoo, job.name, str(notes)),
            *("--memory-gb", str(limits.memory_gb), "--onnx-seconds", str(limits.onnx_seconds)),
            *job.arguments,
        ]
        try:
            ended = subprocess.run(
                command, capture_output=True, text=True, timeout=limits.seconds, check=False
            )
            lines = ended.stderr.strip().splitlines()
            fate = f"exit {ended.returncode}: {lines[-1] if lines else ''}"
        except subprocess.TimeoutExpired:
            fate = f"took longer than {limits.seconds} s"
        found = json.loads(notes.read_text(encoding="utf-8")) if notes.exists() else {}
    record = {"zoo": job.zoo, "name": job.name, **found, **circumstances()}
    if "status" not in record:
        error = {"kind": "Ended", "first_line": fate[:300], "where": ""}
        record |= {"status": "failed", "error": error}
    return record | {"wall_seconds": round(time.perf_counter() - begin, 1)}


def run_here(
    zoo: str, name: str, build: Callable[[], Subject], notes: Path, limits: Limits
) -> None:
    """The process of one member: what is known so far lies in `notes` before every stage."""
    limit_memory(limits.memory_gb)

    def write(record: Record) -> None:
        note(notes, record)

    record = Pass({"zoo": zoo, "name": name}, limits.onnx_seconds, write).run(build)
    write(record | {"peak_memory_gb": _peak_memory_gb()})


def note(notes: Path, record: Record) -> None:
    """What is known so far, whole or not at all."""
    part = notes.with_suffix(".part")
    part.write_text(json.dumps(record), encoding="utf-8")
    part.replace(notes)


def limit_memory(gigabytes: float) -> None:
    """Only where the system can (not on Windows)."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_DATA, (int(gigabytes * 2**30), resource.RLIM_INFINITY))


def _peak_memory_gb() -> float:
    try:
        import resource
    except ImportError:
        return 0.0
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 2)
