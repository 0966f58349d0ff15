"""The format `torch.export`: an archive, written, read again and compared, run by PyTorch."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import GraphModule

from compressor.clock import Call, Clock
from compressor.errors import CompressorError
from compressor.files.format_table import FORMATS, PROGRAM
from compressor.formats.job import Counted, Job, Methods, Outcome
from compressor.formats.output import write
from compressor.graph.counting import count_params
from compressor.graph.counting_by_program import macs_of_program
from compressor.graph.programs.containers import make_plain_for_a_while
from compressor.graph.programs.drawing import random_inputs
from compressor.loading import load_program_file
from compressor.quiet import root_message, silence
from compressor.records import Trace
from compressor.runtimes.ways import Way
from compressor.slicing import as_module
from compressor.slicing.compare import Reference, require_agreement
from compressor.torch_calls import clock_of, computing_in, prepare

_SOURCE_META = ("stack_trace", "source_fn_stack", "torch_fn", "from_node")


def save_program(program: ExportedProgram, path: Path) -> None:
    """Write the program as a `torch.export` archive, the same bytes for the same program.

    The archive has no stack traces and source paths, and tuples in place of named tuples and of
    objects that the program takes or returns. The program itself keeps them.

    Raises:
        CompressorError: The program cannot be serialised, or the file cannot be written.
    """
    buffer = io.BytesIO()  # a file's own name would stand in the archive
    with silence(), _without_source(program):
        try:
            with make_plain_for_a_while(program):
                torch.export.save(program, buffer)
        except Exception as error:  # the serialiser's errors share no base but this one
            raise CompressorError(
                f"the program cannot be serialised: {root_message(error)}",
                where=str(path),
                consequence="there is no .pt2 file",
                next_step="deploy another format (--format onnx), or report it with the network",
            ) from error
    write(path, buffer.getvalue())


@contextlib.contextmanager
def _without_source(program: ExportedProgram) -> Iterator[None]:
    """Take what tells of source files out of every node's metadata; put it back at the end."""
    removed: list[tuple[dict[str, Any], dict[str, Any]]] = []
    try:
        for module in program.graph_module.modules():
            for node in module.graph.nodes if isinstance(module, GraphModule) else ():
                taken = {key: node.meta.pop(key) for key in _SOURCE_META if key in node.meta}
                removed.append((node.meta, taken))
        yield
    finally:
        for meta, taken in removed:
            meta.update(taken)


def run_in(way: Way, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
    """Move a module to the way's device and precision, in place, and return a call of it."""
    how = way.backend.removeprefix("torch").removeprefix("-")
    return prepare(module, args, kwargs, way.device, way.precision, how)


def _attempt(traced: Trace, folder: Path) -> None:
    path = folder / FORMATS[PROGRAM].file
    save_program(traced.program, path)
    with silence():
        load_program_file(path)


def _write(job: Job) -> Outcome:
    path = job.folder / FORMATS[PROGRAM].file
    save_program(job.program, path)
    reference = Reference(as_module(job.program), job.traced)
    with silence():
        again = load_program_file(path)
    worst = reference.worst_difference(as_module(again))
    require_agreement(reference, worst, f"the program and its file {path.name}")
    return Outcome(worst.size)


def start(path: Path, way: Way, seed: int) -> tuple[Call, Clock]:
    """Start the program; threads and numbers are set for the rest of this process."""
    torch.set_num_threads(way.threads)
    computing_in(way.precision).__enter__()
    program = load_program_file(path)
    args, kwargs = random_inputs(program, way.batch, "cpu", seed)
    return run_in(way, as_module(program), args, kwargs), clock_of(way.device)


def _count(path: Path) -> Counted:
    return count_program(load_program_file(path))


def count_program(program: ExportedProgram) -> Counted:
    """Count the multiply-adds of one sample, and the parameters, of a program."""
    args, kwargs = random_inputs(program, 1, "cpu", 0)
    macs = sum(macs_of_program(program, args, kwargs).values())
    return Counted(macs, count_params(as_module(program)))


METHODS = Methods(_attempt, _write, _count)
