"""What this machine has: free memory, and processors."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def cores() -> int:
    """Return how many CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_bytes() -> int:
    """Return the bytes that are free on this machine or left to this container, whichever is less.

    It is 4 GB where neither is known.
    """
    known = [free for free in (_of_the_machine(), _of_the_container()) if free is not None]
    return min(known, default=4 * 10**9)


def _of_the_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        (kibibytes,) = [line.split()[1] for line in lines if line.startswith("MemAvailable")]
        return 1024 * int(kibibytes)
    except (OSError, ValueError):
        return None


def _of_the_container() -> int | None:
    try:
        most, used = (
            int((_CGROUP / name).read_text(encoding="ascii"))
            for name in ("memory.max", "memory.current")
        )
        return max(0, most - used)
    except (OSError, ValueError):  # there is none, or it has no limit ("max")
        return None
