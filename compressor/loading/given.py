"""Recognise by its content what a command is given: a result's folder, an ONNX file or a MODEL."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from compressor.errors import UsageError
from compressor.files.folder import is_result
from compressor.files.format_table import FORMATS, ONNX, PROGRAM
from compressor.loading.hugging_face import is_hugging_face
from compressor.loading.sniff import HEAD_BYTES, FileKind, sniff


@dataclass(frozen=True)
class ResultFolder:
    """A folder that compress has written.

    Attributes:
        path: The folder.
        files: The formats' files that are there, by the words of the formats.
    """

    path: Path
    files: Mapping[str, Path]


@dataclass(frozen=True)
class OnnxFile:
    """A file that begins as ONNX files do, whatever its name."""

    path: Path


@dataclass(frozen=True)
class RuntimeFile:
    """A file for a runtime alone, which no MODEL is read from.

    Attributes:
        path: The file.
        name: The word of its format.
    """

    path: Path
    name: str


@dataclass(frozen=True)
class ModelSpec:
    """Anything else: a MODEL, or what is none and is refused when it is loaded."""

    spec: str

    @property
    def words(self) -> str:
        """What it is, as far as it can be told without loading it."""
        path = Path(self.spec).expanduser()
        if path.is_file():
            return str(sniff(path))
        if path.is_dir():
            return "another folder"
        return "a factory" if ":" in self.spec else "no file and no folder"


Given = ResultFolder | OnnxFile | RuntimeFile | ModelSpec


def recognise(given: str) -> Given:
    """Tell what a command is given, from its content; nothing is loaded."""
    path = Path(given).expanduser()
    if path.is_dir() and is_result(path) and not is_hugging_face(path):
        files = {name: path / row.file for name, row in FORMATS.items()}
        return ResultFolder(path, {n: file for n, file in files.items() if file.is_file()})
    if path.is_file() and sniff(path) is FileKind.ONNX:
        return OnnxFile(path)
    if path.is_file() and (name := _runtime_of(path)):
        return RuntimeFile(path, name)
    return ModelSpec(given)


def _runtime_of(path: Path) -> str:
    """Return the word of the format that a file begins like; "" where there is none."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    rows = ((name, row.begins) for name, row in FORMATS.items() if row.begins)
    return next((name for name, begins in rows if re.match(begins, head)), "")


def open_result(given: str, command: str) -> ResultFolder:
    """Return the result's folder that a command is given.

    Raises:
        UsageError: It is something else; the error says what, and which command takes it.
    """
    found = recognise(given)
    if isinstance(found, ResultFolder):
        return found
    label = FORMATS[found.name if isinstance(found, RuntimeFile) else ONNX].label
    words = found.words if isinstance(found, ModelSpec) else f"an {label}"
    raise UsageError(
        f"compress {command} takes a folder that compress has written, and this is {words}",
        where=given,
        consequence="nothing was done",
        next_step=f"compress bench times {label}s; give the folder that the file lies in"
        if not isinstance(found, ModelSpec)
        else "compress a network first (compress MODEL), or give the folder of a result",
    )


def require_model(given: str) -> None:
    """Check that what is given as MODEL is no result's folder.

    Raises:
        UsageError: It is one; the error says which commands take it, and what can be given instead.
    """
    found = recognise(given)
    if isinstance(found, ResultFolder):
        program = found.files.get(PROGRAM)
        give = f"give its program, {program}" if program else "give the model it was made from"
        raise UsageError(
            f"{given} is a folder that compress has written, and no MODEL",
            where="MODEL",
            consequence="nothing was loaded",
            next_step=f"{give}; compress bench, compare and export take the folder",
        )
