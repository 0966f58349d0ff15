"""Hold the network that went in, and try the formats on it before anything long is done."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from torch import nn
from torch.export import ExportedProgram

from compressor.errors import CompressorError
from compressor.files.claimed import new_folder
from compressor.files.format_table import FORMATS, ONNX, PROGRAM
from compressor.formats.job import methods_of, remove_files
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
        self._attempts: dict[str, Route | CompressorError | None] = {}

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
        reasons = {name: self.why_not(name) for name in self._formats}
        return {name: reason for name, reason in reasons.items() if reason}

    def why_not(self, name: str) -> str:
        """Return why the network cannot be written in a format, requested or not; "" if it can."""
        outcome = self._attempt(name)
        return outcome.what if isinstance(outcome, CompressorError) else ""

    @property
    def why_no_onnx(self) -> str:
        """Return why the network cannot be written as ONNX; "" where it can."""
        return self.why_not(ONNX)

    def file_of(self, name: str) -> Path:
        """Return the network's file in a format, in a directory that lasts as long as this object.

        Raises:
            CompressorError: It cannot be written so, or its runtime does not run the file.
        """
        self.route_of(name)
        return self._folder.path / FORMATS[name].file

    @property
    def onnx(self) -> Path:
        """Return the network's ONNX file; see `file_of`."""
        return self.file_of(ONNX)

    def runnable(self, name: str) -> Runnable:
        """Return what runs a format: its program, or a file. Raises what `file_of` does."""
        return self.program if name == PROGRAM else self.file_of(name)

    def route_of(self, name: str) -> Route | None:
        """Return the route on which a format's file was written, where it has several.

        Raises:
            CompressorError: It cannot be written so.
        """
        outcome = self._attempt(name)
        if isinstance(outcome, CompressorError):
            raise outcome
        return outcome

    @cached_property
    def _folder(self) -> TemporaryFolder:
        return TemporaryFolder()

    def _attempt(self, name: str) -> Route | CompressorError | None:
        """Write the network in a format, once; return the route, or why it cannot be.

        What failed leaves no file, and neither does a program, which PyTorch runs as it is.
        """
        if name not in self._attempts:
            folder = self._folder.path
            try:
                self._attempts[name] = methods_of(name).attempt(self._trace, folder)
            except CompressorError as error:
                self._attempts[name] = error
            if name == PROGRAM or isinstance(self._attempts[name], CompressorError):
                remove_files(name, folder)
        return self._attempts[name]


def missing(name: str) -> str:
    """Return a sentence part that says that a format's file is not delivered."""
    return f"no {FORMATS[name].label} is delivered"
