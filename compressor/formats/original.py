"""Hold the network that went in, and try the formats on it before anything long is done."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from torch import nn
from torch.export import ExportedProgram

from compressor.errors import CompressorError
from compressor.files.claimed import new_folder, temporary_folder
from compressor.formats import Way, call_once, export_onnx, save_program, user_inputs, ways_of
from compressor.formats.output import silence
from compressor.loading import load_program_file
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

    @cached_property
    def unwritable(self) -> Mapping[str, str]:
        """Return the requested formats that the network cannot be written in: name -> reason."""
        reasons = {name: _reason(_TRIALS[name], self) for name in self._formats}
        return {name: reason for name, reason in reasons.items() if reason}

    @cached_property
    def why_no_onnx(self) -> str:
        """Return why the network cannot be written as ONNX, requested or not; "" where it can."""
        return _reason(_TRIALS["onnx"], self)

    @property
    def onnx(self) -> Path:
        """Return the network's ONNX file, in a directory that lasts as long as this object.

        Raises:
            CompressorError: It cannot be written as ONNX, or ONNX Runtime does not run the file.
        """
        return self._written[0].path / "model.onnx"

    def runnable(self, by_torch: bool) -> Runnable:
        """What PyTorch runs, its program, or ONNX Runtime, its file. Raises what `onnx` does."""
        return self._trace.program if by_torch else self.onnx

    @property
    def way(self) -> Way:
        """Return the way of exporting in which the ONNX file is written.

        Raises:
            CompressorError: It cannot be written as ONNX, or ONNX Runtime does not run the file.
        """
        return self._written[1]

    @cached_property
    def _written(self) -> tuple[TemporaryFolder, Way]:
        folder, traced = TemporaryFolder(), self._trace
        path, examples = folder.path / "model.onnx", traced.examples
        feeds = user_inputs(traced.program, examples.args, examples.kwargs)

        def check(way: Way) -> None:
            samples = None if way.free_batch or traced.batch_symbol is None else 1
            call_once(path, feeds, samples)

        symbol = traced.batch_symbol
        way = export_onnx(
            traced.program, path, batch_symbol=symbol, ways=ways_of(symbol), check=check
        )
        return folder, way

    def try_program_file(self) -> None:
        """Write the program to a temporary file and read it again.

        Raises:
            CompressorError: It cannot be written, or cannot be read without running code.
        """
        with temporary_folder() as folder:
            save_program(self._trace.program, folder / "model.pt2")
            with silence():
                load_program_file(folder / "model.pt2")


_TRIALS: Mapping[str, Callable[[Original], object]] = {
    "onnx": lambda original: original.onnx,
    "pt2": lambda original: original.try_program_file(),
}
"""How each format is tried on the original; a format whose trial raises CompressorError cannot
be written."""


_TITLES = {"onnx": "ONNX file", "pt2": "torch.export program (model.pt2)"}


def missing(name: str) -> str:
    """Return a sentence part that says that a format's file is not delivered."""
    return f"no {_TITLES[name]} is delivered"


def _reason(trial: Callable[[Original], object], original: Original) -> str:
    try:
        trial(original)
    except CompressorError as error:
        return error.what
    return ""
