"""Build torch's table of ONNX operators once per process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Any
from unittest.mock import patch

_MODULE = "torch.onnx._internal.exporter._registration"


@contextmanager
def read_operators_once() -> Iterator[None]:
    """Let torch's exporter build its table of about 1,100 operators only for the first file.

    It builds the table anew for each file, from the source text of every operator; for a small
    network that is half of the time that a file takes. A torch that keeps the table elsewhere is
    left as it is.
    """
    try:
        registry = import_module(_MODULE).ONNXRegistry
        build = registry.from_torchlib
    except (ImportError, AttributeError):
        yield
        return
    with patch.object(registry, "from_torchlib", staticmethod(_once(build))):
        yield


@cache
def _once(build: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with its results kept by opset, and by whether torchvision is loaded."""

    @cache
    def kept(has_torchvision: bool, **opset: int) -> Any:
        return build(**opset)

    return lambda **opset: kept("torchvision" in sys.modules, **opset)
