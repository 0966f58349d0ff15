"""Ways to damage a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def truncate(path: Path, share: float) -> None:
    """Only the first part stays."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def flip(path: Path, share: float, bits: int = 0x10) -> None:
    """Some bits of one byte, at that share of the file."""
    content = bytearray(path.read_bytes())
    content[int(share * (len(content) - 1))] ^= bits
    path.write_bytes(bytes(content))


def edit(path: Path, change: Callable[[Any], object]) -> None:
    """A JSON file's content, changed in place."""
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
