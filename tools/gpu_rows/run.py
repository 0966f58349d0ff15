"""The parts in the order of their worth, each in a process of its own with a limit of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from tools.gpu_rows import places
from tools.gpu_rows.parts import NO_GPU, PARTS
from tools.gpu_rows.records import known

SECONDS = 570.0
"""Of one call, so that it ends by itself before a limit of ten minutes."""

STOPPED = "stopped at its limit"


def run(out: Path, *, is_dry: bool, only: tuple[str, ...] = (), seconds: float = SECONDS) -> int:
    """Run the parts; whatever one does, the next one gets its turn, and what was recorded stays.

    Returns:
        0 if nothing failed; a part may have been stopped at its limit, except in a dry run.
    """
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    cache = (out if is_dry else places.PACK) / "cache"
    if not is_dry:
        _brought_along(out)
        _copied(out / places.TABLES, cache / "compressor" / "latency")
    end = time.monotonic() + seconds

    def ended(name: str) -> str:
        left = end - time.monotonic()
        if left < 1:
            return STOPPED
        most = left if is_dry else min(PARTS[name].seconds or left, left)  # a CPU may be busy
        state = _run(name, out, cache, most, is_dry=is_dry)
        _copied(cache / "compressor" / "latency", out / places.TABLES)
        print(f"{name}: {state}", flush=True)
        return state

    # On a GPU one after the other, so that no part is timed beside another.
    with ThreadPoolExecutor(2 if is_dry else 1) as threads:
        states = list(threads.map(ended, [name for name in PARTS if name in (only or PARTS)]))
    found = known([out / places.RECORDS]).values()
    failed = [record for record in found if "failure" in record]
    for record in failed:
        print(f"{record['part']} {record['key']}: {record['failure']}", flush=True)
    print(f"{len(found) - len(failed)} records in {out / places.RECORDS}", flush=True)
    fine = ("ended",) if is_dry else ("ended", STOPPED)
    return int(bool(failed) or not all(state in fine for state in states))


def _brought_along(out: Path) -> None:
    """Checkpoints and tables of an earlier call, where this one goes on from."""
    for file in places.EARLIER.rglob("*"):
        target = out / file.relative_to(places.EARLIER)
        if file.is_file() and file.name != places.RECORDS and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


def _copied(source: Path, target: Path) -> None:
    """Copy the files of a folder."""
    for file in source.glob("*"):
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target / file.name)


def _run(name: str, out: Path, cache: Path, seconds: float, *, is_dry: bool) -> str:
    """Run a part, and say how it ended."""
    command = [sys.executable, "-m", "tools.gpu_rows.part", name, str(out), str(seconds)]
    with (out / places.LOG).open("a") as log:
        log.write(f"== {name}, {seconds:.0f} s\n")
        log.flush()
        process = subprocess.Popen(
            command + ["--dry-run"] * is_dry,
            cwd=places.ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(cache),
            process_group=0,  # of our session, so that it ends with us
        )
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return STOPPED
        finally:
            _ended(process)
    if code == NO_GPU:
        return "there is no CUDA device here; tools/gpu --dry-run tries all of it on the CPU"
    return "ended" if code == 0 else f"ended with {code}; see {places.LOG}"


def _ended(process: subprocess.Popen[bytes]) -> None:
    """The part with all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _environment(cache: Path) -> dict[str, str]:
    """Layers' times are kept in a folder of our own, from which they are taken along."""
    paths = [str(places.ROOT), str(places.SITE), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "XDG_CACHE_HOME": str(cache.resolve()),
    }
