"""Give an ONNX file's tensors and nodes names that PyTorch takes: paths of modules and tensors."""

from __future__ import annotations

import keyword
import re

from torch import nn

_SPLIT, _ODD = re.compile(r"[./]+"), re.compile(r"\W", re.ASCII)
_TAKEN = frozenset(dir(nn.Module()))
LONGEST = 60
"""The most characters of one part of a name."""


def path_of(name: str) -> str:
    """Return a name as a path: parts are divided by "." or "/", other odd characters are "_"."""
    parts = [_clean(part) for part in _SPLIT.split(name) if part]
    return ".".join(parts) or "unnamed"


def _clean(part: str) -> str:
    cleaned = _ODD.sub("_", part)[:LONGEST] or "_"
    return f"{cleaned}_" if cleaned in _TAKEN or keyword.iskeyword(cleaned) else cleaned


class Paths:
    """The paths that are given so far: a tensor's path can hold nothing, a module's can."""

    def __init__(self) -> None:
        self._tensors: set[str] = set()
        self._modules: set[str] = set()
        self._owned: set[str] = set()

    def add_tensor(self, name: str) -> str:
        """Return a path for a tensor, which nothing else has."""
        path = self._free(path_of(name), as_tensor=True)
        self._tensors.add(path)
        self._modules |= set(_prefixes(path))
        return path

    def add_module(self, name: str) -> str:
        """Return a path for a module that runs a node; tensors and modules may lie within it."""
        path = self._free(path_of(name), as_tensor=False)
        self._owned.add(path)
        self._modules |= {path, *_prefixes(path)}
        return path

    def _free(self, path: str, *, as_tensor: bool) -> str:
        """Return the path, or the nearest one with numbers at its end that is free."""
        while any(prefix in self._tensors for prefix in _prefixes(path)):
            blocked = next(prefix for prefix in _prefixes(path) if prefix in self._tensors)
            path = f"{blocked}_{path[len(blocked) :]}"
        taken = self._tensors | (self._modules if as_tensor else self._owned)
        free, count = path, 1
        while free in taken:
            count += 1
            free = f"{path}_{count}"
        return free


def _prefixes(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]
