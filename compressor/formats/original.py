"""Hold the network that went in, and try the formats on it before anything long is done."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from torch import nn
from torch.export import ExportedProgram

from compressor.errors import CompressorError
from compressor.files.claimed import new_folder, temporary_folder
from compressor.files.format_table import FORMATS, ONNX
from compressor.formats.job import methods_of
from compressor.formats.onnx_file import Route
from compressor.records import Trace

Runnable = Path | ExportedProgram
"""A network that can be timed: ONNX Runtime runs a file, PyTorch a program."""


class TemporaryFolder:
    """A directory that is removed with the last reference to this object."""

    def __init__(self) -> None:
        self.path, remove = new_folder()
        self.remove = weakref.finalize(self, remove)


class Original:
    """The network that went in: smaller ones learn from it and are timed against it."""

    def __init__(self, trace: Trace, formats: Sequence[str] = ()) -> None:
        """Take the traced network, and the formats that the result is to be written in."""
        self._trace, self._formats = trace, formats

    @property
    def module(self) -> nn.Module:
        """Return the network's module, in eval mode."""
        return self._trace.module

    @property
    def program(self) -> ExportedProgram:
        """Return the network's program."""
        return self._trace.program

    @cached_property
    def unwritable(self) -> Mapping[str, str]:
        """Return the requested formats that the network cannot be written in: name -> reason."""
        reasons = {
            name: self.why_no_onnx if name == ONNX else _why_not(name, self._trace)
            for name in self._formats
        }
        return {name: reason for name, reason in reasons.items() if reason}

    @cached_property
    def why_no_onnx(self) -> str:
        """Return why the network cannot be written as ONNX, requested or not; "" where it can."""
        try:
            _ = self.onnx
        except CompressorError as error:
            return error.what
        return ""

    @property
    def onnx(self) -> Path:
        """Return the network's ONNX file, in a directory that lasts as long as this object.

        Raises:
            CompressorError: It cannot be written as ONNX, or ONNX Runtime does not run the file.
        """
        return self._onnx[0].path / FORMATS[ONNX].file

    def runnable(self, by_torch: bool) -> Runnable:
        """What PyTorch runs, its program, or ONNX Runtime, its file. Raises what `onnx` does."""
        return self.program if by_torch else self.onnx

    def route_of(self, name: str) -> Route | None:
        """Return the route on which a format's file was written, where it has several.

        Raises:
            CompressorError: It is ONNX, and cannot be written.
        """
        return self._onnx[1] if name == ONNX else None

    @cached_property
    def _onnx(self) -> tuple[TemporaryFolder, Route | None]:
        folder = TemporaryFolder()
        return folder, methods_of(ONNX).attempt(self._trace, folder.path)


def _why_not(name: str, traced: Trace) -> str:
    """Try to write a network in a format, and return why it cannot be; "" where it can."""
    try:
        with temporary_folder() as folder:
            methods_of(name).attempt(traced, folder)
    except CompressorError as error:
        return error.what
    return ""


def missing(name: str) -> str:
    """Return a sentence part that says that a format's file is not delivered."""
    return f"no {FORMATS[name].label} is delivered"
