"""Tell the system which pages of memory are not needed any more, or not for now.

A tensor that lies in a mapped file is read again where it is touched again. Until then its pages
count as this process's memory, although nothing was written to them. So do those of tensors that
are gone, as long as the allocator keeps them for the next ones.
"""

from __future__ import annotations

import ctypes
import mmap
import re
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_MAPS = Path("/proc/self/smaps")
"""Where Linux lists what is mapped, and of what nature its pages are; elsewhere there is none."""

_FILE = re.compile(
    r"([0-9a-f]+)-([0-9a-f]+) [^\n]*\.safetensors\n.*^Anonymous: +0 kB$", re.DOTALL | re.MULTILINE
)
"""A mapped file, first and last address, none of whose pages are this process's own."""


def mapped_files() -> list[range]:
    """Return the addresses at which files of safetensors are mapped; none where nobody tells.

    Those that somebody has written to, here and not in the file, are left out.
    """
    try:
        text = _MAPS.read_text(encoding="utf-8")
    except OSError:
        return []
    found = (_FILE.match(part) for part in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", text))
    return [range(int(each[1], 16), int(each[2], 16)) for each in found if each]


def lies_in(tensor: Tensor, places: Sequence[range]) -> bool:
    """Return whether all of a tensor's memory lies in one of the places."""
    if not places or tensor.layout != torch.strided or not tensor.is_contiguous():
        return False
    first = tensor.data_ptr()
    last = first + tensor.numel() * tensor.element_size() - 1
    return any(first in place and last in place for place in places)


def give_pages_back(tensor: Tensor) -> None:
    """Give the pages back that only a tensor in a mapped file lies on; its values stay.

    Nobody may have written to it: what was written would be lost.
    """
    _advise(tensor, "MADV_DONTNEED")


def take_large_pages(tensor: Tensor) -> None:
    """Ask for large pages for a tensor that is about to be filled, which takes half the time."""
    _advise(tensor, "MADV_HUGEPAGE")


def _advise(tensor: Tensor, advice: str) -> None:
    """Tell the system about the pages that only a tensor lies on, where it knows the advice."""
    page = mmap.PAGESIZE
    first = -(-tensor.data_ptr() // page) * page
    last = (tensor.data_ptr() + tensor.numel() * tensor.element_size()) // page * page
    if last > first and hasattr(mmap, advice):
        size = ctypes.c_size_t(last - first)
        _call("madvise", ctypes.c_void_p(first), size, getattr(mmap, advice))


def trim_heap() -> None:
    """Give the pages back that the allocator keeps of tensors which are gone."""
    _call("malloc_trim", ctypes.c_size_t(0))


def _call(name: str, *args: Any) -> None:
    """Call a function of Linux's C library, where it has it."""
    function = _find(name)
    if function is not None:
        function(*args)


@cache
def _find(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
