"""The original's ONNX file, made when it is first asked for."""

from __future__ import annotations

import weakref
from functools import cached_property
from pathlib import Path

from torch import nn

from compressor.export import export_onnx
from compressor.files.claimed import new_folder
from compressor.records import Trace


class TemporaryFolder:
    """A directory that is removed with the last reference to it."""

    def __init__(self) -> None:
        self.path, remove = new_folder()
        self.remove = weakref.finalize(self, remove)


class Original:
    """The network that went in: smaller ones learn from it and are timed against it."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    @property
    def module(self) -> nn.Module:
        """In eval mode."""
        return self._trace.module

    @property
    def onnx(self) -> Path:
        """Its ONNX file, in a directory that lasts as long as this object."""
        return self._folder.path / "model.onnx"

    @cached_property
    def _folder(self) -> TemporaryFolder:
        folder = TemporaryFolder()
        export_onnx(
            self._trace.program, folder.path / "model.onnx", batch_symbol=self._trace.batch_symbol
        )
        return folder
