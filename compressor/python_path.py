"""Let another Python process find this package."""

from __future__ import annotations

import os
from pathlib import Path

import compressor


def python_path() -> str:
    """Return the PYTHONPATH with which a process imports this very package, and what we find."""
    root = str(Path(compressor.__file__).parent.parent)
    return os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))


def environment() -> dict[str, str]:
    """Return this process's environment, with that PYTHONPATH."""
    return {**os.environ, "PYTHONPATH": python_path()}
