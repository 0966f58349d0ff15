"""List the formats of a result: what each is called, its files, how it is written and verified."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch.export import ExportedProgram

from compressor.calls import Call
from compressor.errors import CompressorError
from compressor.formats import Way, save_program, ways_of
from compressor.formats.output import silence
from compressor.formats.verifying import written_and_verified
from compressor.loading import load_program_file
from compressor.records import Trace
from compressor.slicing import as_module
from compressor.slicing.compare import Reference, require_agreement


@dataclass(frozen=True)
class Job:
    """What is to be written: a program, with all that its files say and are compared on.

    Attributes:
        program: The program.
        traced: Has the example inputs, and the batch where it is free.
        folder: Where the files go.
        metadata: What files say of themselves, by name.
        real: Inputs from the user's data.
        first: The way in which the original's ONNX file was written; earlier ways are skipped.
        opset: Version of ONNX's operators; None for the exporter's own.
    """

    program: ExportedProgram
    traced: Trace
    folder: Path
    metadata: Mapping[str, str] = field(default_factory=dict)
    real: Call | None = None
    first: Way | None = None
    opset: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of writing one format.

    Attributes:
        difference: The largest relative difference between file and program.
        how: What is not usual about the file, in words.
        reason: Why there is no file; "" where there is one.
    """

    difference: float = 0.0
    how: str = ""
    reason: str = ""

    @property
    def is_there(self) -> bool:
        return not self.reason


@dataclass(frozen=True)
class Format:
    """A row of the formats' table.

    Attributes:
        files: The names that it may write.
        write: Writes and verifies the files; it raises CompressorError for what cannot be written,
            or computes something else than the program.
    """

    files: tuple[str, ...]
    write: Callable[[Job], Outcome]


def _onnx(job: Job) -> Outcome:
    ways = ways_of(job.traced.batch_symbol, job.opset)
    if job.first in ways:
        ways = ways[ways.index(job.first) :]
    worst, way = written_and_verified(
        *(job.program, job.folder / "model.onnx", job.traced, ways),
        real=job.real,
        metadata=job.metadata,
        opset=job.opset,
    )
    usual = ways_of(job.traced.batch_symbol)[0]
    fixed = job.traced.batch_symbol is not None and not way.free_batch
    words = [
        "its batch is fixed at one sample" if fixed else "",
        f"written by {way.exporter}" if way.exporter != usual.exporter else "",
    ]
    return Outcome(worst, "; ".join(filter(None, words)))


def _program(job: Job) -> Outcome:
    """Write the program as model.pt2, read it as others will, and compare the two."""
    path = job.folder / "model.pt2"
    save_program(job.program, path)
    reference = Reference(as_module(job.program), job.traced)
    with silence():
        again = load_program_file(path)
    worst = reference.worst_difference(as_module(again))
    require_agreement(reference, worst, "the program and its file model.pt2")
    return Outcome(worst.size)


FORMATS: Mapping[str, Format] = {
    "onnx": Format(("model.onnx", "model.onnx.data"), _onnx),
    "pt2": Format(("model.pt2",), _program),
}
"""All formats, by the word that --format takes."""


def written(name: str, job: Job) -> Outcome:
    """Write and verify one format; where that fails, leave no file of it and return the reason."""
    entry = FORMATS[name]
    try:
        return entry.write(job)
    except CompressorError as error:
        for file in entry.files:
            (job.folder / file).unlink(missing_ok=True)
        return Outcome(reason=error.what)
