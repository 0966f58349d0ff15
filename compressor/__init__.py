"""A trained PyTorch network goes in, a genuinely smaller dense network comes out.

    import compressor

    result = compressor.compress(model, example_inputs, ratio=0.5)
    result.module            # smaller, ready for training
    result.save("exported/net")
    compressor.load("exported/net", build_net)

torch is imported when one of these is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compressor.formats.model_file import save
    from compressor.graph.axes import Axis, Product, Sum
    from compressor.graph.rules import Call, Equations, register_rule
    from compressor.report import report_schema
    from compressor.run.compress import compress
    from compressor.run.result import Result, load, load_program
    from compressor.slicing.masking import masked

    __version__: str

__all__ = [
    "Axis",
    "Call",
    "Equations",
    "Product",
    "Result",
    "Sum",
    "__version__",
    "compress",
    "load",
    "load_program",
    "masked",
    "register_rule",
    "report_schema",
    "save",
]

_HOMES = {
    "compress": "run.compress",
    "Result": "run.result",
    "load": "run.result",
    "load_program": "run.result",
    "masked": "slicing.masking",
    "save": "formats.model_file",
    "report_schema": "report",
    "register_rule": "graph.rules",
    "Call": "graph.rules",
    "Equations": "graph.rules",
    "Axis": "graph.axes",
    "Product": "graph.axes",
    "Sum": "graph.axes",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("compressor")
    if name in _HOMES:
        return getattr(importlib.import_module(f"compressor.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'compressor' has no attribute {name!r}")
