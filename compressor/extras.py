"""Load packages that one feature alone takes, or say how to install them."""

from __future__ import annotations

import importlib
from types import ModuleType

from compressor.errors import UsageError

EXTRAS = {
    "executorch": "executorch",
    "ncnn": "ncnn",
    "openvino": "openvino",
    "pnnx": "ncnn",
    "pyarrow": "text",
    "ray": "ray",
    "soundfile": "audio",
    "timm": "timm",
    "transformers": "transformers",
    "yaml": "sweep",
}
"""Module -> the extra of this package that installs it."""


def load(module: str, where: str, instead: str = "") -> ModuleType:
    """Import a module of `EXTRAS` and return it.

    Args:
        module: The module's name.
        where: The option or MODEL that takes it.
        instead: What else the user can do, for the error's next step.

    Raises:
        UsageError: It is not installed or cannot be imported; the next step names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        install = f"pip install 'compressor[{EXTRAS[module]}]'"
        missing = error.name in (module, None)
        raise UsageError(
            f"{module} is not installed" if missing else f"{module} cannot be imported: {error}",
            where=where,
            next_step=f"{install}, or {instead}" if instead else install,
        ) from error
