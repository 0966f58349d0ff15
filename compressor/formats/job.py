"""Say what a format's code must know to do: try, write and verify, and count."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path

from torch import nn
from torch.export import ExportedProgram

from compressor import extras
from compressor.calls import Call as Inputs
from compressor.errors import CompressorError
from compressor.files.folder import files_under
from compressor.files.format_table import FORMATS
from compressor.formats.folder_source import FolderSource
from compressor.formats.onnx_file import Route
from compressor.records import Trace
from compressor.slicing.compare import Reference


@dataclass(frozen=True)
class Job:
    """What is to be written: a program, with all that its files say and are compared on.

    Attributes:
        program: The program.
        traced: Has the example inputs, and the batch where it is free.
        folder: Where the files go.
        metadata: What files say of themselves, by name.
        real: Inputs from the user's data.
        first: The route on which the original's file was written; earlier ones are skipped.
        module: The program's network as a module, where it may know the ONNX file that it came
            from.
        source: Returns what a transformers folder is written from, if the network came from one;
            it raises CompressorError where the configuration cannot say its widths.
        reference: What the program computes, where that is known and cannot have changed.
    """

    program: ExportedProgram
    traced: Trace
    folder: Path
    metadata: Mapping[str, str] = field(default_factory=dict)
    real: Inputs | None = None
    first: Route | None = None
    module: nn.Module | None = None
    source: Callable[[], FolderSource] | None = None
    reference: Reference | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of writing one format.

    Attributes:
        difference: The largest relative difference between file and program.
        how: What is not usual about the file, in words.
        reason: Why there is no file; "" where there is one.
        size_bytes: Bytes of the file, with what lies beside it; 0 where there is none.
    """

    difference: float = 0.0
    how: str = ""
    reason: str = ""
    size_bytes: int = 0

    @property
    def is_there(self) -> bool:
        return not self.reason


@dataclass(frozen=True)
class Counted:
    """The multiply-adds of one sample, and the parameters, of the network in a file."""

    macs: int
    params: int


@dataclass(frozen=True)
class Methods:
    """A format's code.

    Attributes:
        attempt: Writes a traced network into a folder, without comparing the two, and sees that
            the file can be used; it returns the route that was taken, if there are several, and
            raises CompressorError where the network cannot be written.
        write: Writes and verifies the files of a job; it raises CompressorError for what cannot be
            written, or computes something else than the program.
        count: Counts what is in a file; it raises CompressorError where the file cannot be read.
    """

    attempt: Callable[[Trace, Path], Route | None]
    write: Callable[[Job], Outcome]
    count: Callable[[Path], Counted]


def check_installed(name: str, where: str, *, is_written: bool = True) -> None:
    """Check that the packages are there without which a format can be neither written nor run.

    Args:
        name: The format's word in the table.
        where: The option that asks for it.
        is_written: Whether it is to be written; else it is run alone.

    Raises:
        UsageError: One is not; the next step names the extra that brings it.
    """
    modules = FORMATS[name].needs
    for module in modules if is_written else modules[:1]:
        extras.load(module, where)


def methods_of(name: str) -> Methods:
    """Return the code of a format, by its word in the table."""
    methods = import_module(FORMATS[name].home).METHODS
    assert isinstance(methods, Methods)
    return methods


def write_format(name: str, job: Job) -> Outcome:
    """Write and verify one format; where that fails, leave no file of it and return the reason."""
    row = FORMATS[name]
    try:
        outcome = methods_of(name).write(job)
    except CompressorError as error:
        remove_files(name, job.folder)
        return Outcome(reason=error.what)
    written = [name for file in row.files for name in files_under(job.folder, file)]
    size_bytes = sum((job.folder / name).stat().st_size for name in written)
    return replace(outcome, size_bytes=size_bytes)


def remove_files(name: str, folder: Path) -> None:
    """Remove a format's files from a folder, as far as they are there."""
    for file in FORMATS[name].files:
        path = folder / file
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)


def differences_of(formats: Mapping[str, Outcome]) -> dict[str, float]:
    """Return how far each file is from the program, by the words of a report."""
    return {
        f"program and {FORMATS[name].label}": outcome.difference
        for name, outcome in formats.items()
        if outcome.is_there
    }
