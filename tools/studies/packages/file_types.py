"""Files of the Python installation, for a network that tells their type by their bytes."""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

TRUTH: Mapping[str, str] = {
    ".py": "python",
    ".so": "elf",
    ".pyc": "pythonbytecode",
    ".json": "json",
    ".toml": "toml",
    ".html": "html",
    ".css": "css",
    ".js": "javascript",
    ".svg": "svg",
    ".png": "png",
    ".ttf": "ttf",
    ".npz": "npz",
    ".gz": "gzip",
}
"""Suffixes that leave no doubt, and what the network calls their type."""
OTHERS = (".txt", ".md", ".rst", ".h", ".hpp", ".c", ".pyi", ".yaml", ".ini", ".cfg", ".csv")
OTHERS += (".xml", ".sh", ".proto", ".npy", ".whl", ".exe", ".pyx", ".jinja2", ".mplstyle", "")
MOST = 16
"""Files of a suffix in either part."""

ENDS, BLOCK, PADDING, LEAST = 1024, 4096, 256, 8
"""Bytes from either end, read out of blocks of so many; what fills up; fewer are no matter of
the network's."""


def draw_files(part: int) -> list[Path]:
    """Return files of part 0 or 1, which have none in common: few of each suffix, by their hash."""
    drawn: dict[str, list[tuple[str, Path]]] = {suffix: [] for suffix in (*TRUTH, *OTHERS)}
    for mark, file in _files():
        if int(mark[-1], 16) % 2 == part and file.suffix in drawn:
            drawn[file.suffix].append((mark, file))
    return [
        file
        for marked in drawn.values()
        for file in islice((file for _, file in sorted(marked) if _is_long_enough(file)), MOST)
    ]


def _files() -> Iterator[tuple[str, Path]]:
    """Yield the standard library's and the packages' files with the hash of their path there."""
    roots = [Path(sysconfig.get_paths()[name]) for name in ("stdlib", "purelib")]
    for root in roots:
        for file in root.rglob("*"):
            if roots[1] == root or roots[1] not in file.parents:
                yield hashlib.sha256(file.relative_to(root).as_posix().encode()).hexdigest(), file


def _is_long_enough(file: Path) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return len(opened.read(BLOCK).strip()) >= LEAST


def bytes_of(file: Path) -> Tensor:
    """Return what the network sees of a file [2 * ENDS]: its beginning and its end, stripped."""
    with file.open("rb") as opened:
        first = opened.read(BLOCK)
        opened.seek(max(file.stat().st_size - BLOCK, 0))
        last = opened.read(BLOCK)
    is_short = file.stat().st_size <= BLOCK
    begin = (first.strip() if is_short else first.lstrip())[:ENDS]
    end = (last.strip() if is_short else last.rstrip())[-ENDS:]
    fill = [PADDING] * ENDS
    both = [*begin, *fill[len(begin) :], *fill[len(end) :], *end]
    return torch.tensor(both, dtype=torch.int32)
