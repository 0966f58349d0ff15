"""Look up torch's operators once: those that become ONNX, and those made of others."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib import import_module
from typing import Any
from unittest.mock import patch

_REGISTRATION = "torch.onnx._internal.exporter._registration"
_EXPORT = "torch._export.utils"


@contextmanager
def read_operators_once() -> Iterator[None]:
    """Let torch's exporter look up operators no more often than their number can change.

    It builds a table of about 1,100 operators that become ONNX from the source text of each, anew
    for each file; here only for the first file of a process. And it asks for all operators that are
    made of others some 60 times per file, once for each of torch's namespaces, twice over; here
    once, since no operator comes to be meanwhile. For a small network the two are three quarters of
    the time that a file takes. A torch that keeps them elsewhere is left as it is.
    """
    with ExitStack() as stack:
        registry = _find(_REGISTRATION, "ONNXRegistry")
        if build := getattr(registry, "from_torchlib", None):
            stack.enter_context(patch.object(registry, "from_torchlib", staticmethod(_once(build))))
        if ask := _find(_EXPORT, "_materialize_cpp_cia_ops"):
            home = import_module(_EXPORT)
            stack.enter_context(patch.object(home, ask.__name__, cache(ask)))
        yield


def _find(module: str, name: str) -> Any:
    """Return what a module of torch calls by this name; None where there is none."""
    try:
        return getattr(import_module(module), name, None)
    except ImportError:
        return None


@cache
def _once(build: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with its results kept by opset, and by whether torchvision is loaded."""

    @cache
    def kept(has_torchvision: bool, **opset: int) -> Any:
        return build(**opset)

    return lambda **opset: kept("torchvision" in sys.modules, **opset)
